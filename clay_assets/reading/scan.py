"""Opens files, and reads their rows a few megabytes at a time, several files at once.

Every function that reads raises DamagedFileError for a file that can't be read as Parquet, and StorageError
if the store refuses.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clay_assets.parquet import DAMAGE, DamagedFileError, damaged
from clay_assets.reading.files import Facts, NothingToRead, SourceFile, facts_of
from clay_assets.reading.selection import Selection

T = TypeVar("T")
R = TypeVar("R")

WORKERS = min(8, 2 * (os.cpu_count() or 1))  # decompression releases the GIL, and requests overlap
WHOLE_BYTES = 32 * 2**20  # a remote file up to this size is fetched by one request, a larger one in parts
BLOCK_BYTES = 8 * 2**20  # of float32 vectors, decoded at a time
NARROW_ROWS = 65_536  # decoded at a time without vectors

OTHERS = pa.schema([("source_url", pa.string()), ("date", pa.date32()), ("geometry", pa.binary())])
"""The columns other than the vectors."""

ALL_ROWS = Selection()


class Block(NamedTuple):
    """Some rows."""

    rows: pa.Table  # the requested columns, without the vectors
    vectors: NDArray[np.float32]  # (N, width); (N, 0) if vectors were not requested


@contextmanager
def opened(file: SourceFile, *, whole: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a file; if most of it will be read (`whole`), a remote file is fetched by one request."""
    with ExitStack() as stack:
        source: Any
        if file.store.is_local:
            source = file.url
        elif whole and file.object.size <= WHOLE_BYTES:
            source = pa.BufferReader(file.store.read(file.object))
        else:
            source = stack.enter_context(file.store.open(file.object))
        try:
            # Pre-buffering would hold every row group's compressed pages until the end.
            yield stack.enter_context(pq.ParquetFile(source, pre_buffer=False))
        except DAMAGE as error:
            raise DamagedFileError(f"{file.url}: {damaged(error)}") from error


def footers(files: Iterable[SourceFile]) -> list[Facts]:
    """Read each file's footer. Raises ValueError if a file has no embeddings."""

    def read(file: SourceFile) -> Facts:
        with opened(file) as parquet:
            return facts_of(file, parquet)

    return list(in_parallel(read, files))


def dim_of(files: Sequence[Facts]) -> int:
    """Return the length of one vector: the shape's last axis; for lists, that of the first row.

    Raises NothingToRead if the files have lists and no rows.
    """
    facts = next((facts for facts in files if facts.shape or facts.rows), None)
    if facts is None:
        raise NothingToRead(f"got no rows in {files[0].file.url}; expected embeddings in at least one file")
    if facts.shape:
        return facts.shape[-1]
    with opened(facts.file) as parquet:
        first = next(parquet.iter_batches(1, columns=["embeddings"]))
    return len(first["embeddings"][0])


def in_parallel(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Call `work` for each item in `WORKERS` threads; yield the results in the items' order."""
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="clay-read") as pool:
        yield from pool.map(work, items)  # the first error cancels the rest


def parts(files: Iterable[Facts]) -> list[Facts]:
    """Split files into what one thread reads: small files whole, large ones by row group."""
    split = []
    for facts in files:
        small = facts.file.object.size <= WHOLE_BYTES
        split += [facts] if small else [replace(facts, groups=[group]) for group in facts.groups]
    return split


def blocks(
    facts: Facts, columns: Sequence[str], selection: Selection = ALL_ROWS, *, vectors: bool = True
) -> Iterator[Block]:
    """Read the matching rows of a file's row groups, in their order; `columns` without `embeddings`.

    Row groups without a match are skipped. In the others, vectors are decoded block by block up to the last
    match, and only the matching ones are kept.
    """
    size = max(1, BLOCK_BYTES // (4 * facts.width)) if vectors else NARROW_ROWS
    names = [*columns, "embeddings"] if vectors else columns
    with opened(facts.file, whole=vectors and not selection.columns) as parquet:
        for group in facts.groups:
            matching = _matching(parquet, group, selection)
            start, end = 0, np.max(np.flatnonzero(matching), initial=-1) + 1
            if not end:
                continue
            for batch in parquet.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
                kept = matching[start : start + len(batch)]
                start += len(batch)
                if kept.any():
                    chosen = batch if kept.all() else batch.filter(pa.array(kept))
                    numbers = np.empty((len(chosen), 0), np.float32)
                    if vectors:
                        numbers = embedding_array(chosen["embeddings"], facts)
                    yield Block(pa.Table.from_batches([chosen.select(columns)]), numbers)
                if start >= end:
                    break


def _matching(parquet: pq.ParquetFile, group: int, selection: Selection) -> NDArray[np.bool_]:
    """Return which rows of a row group match."""
    metadata, columns = parquet.metadata.row_group(group), selection.columns
    if not columns:
        return np.ones(metadata.num_rows, dtype=bool)
    if not selection.may_be_in_group(metadata):
        return np.zeros(metadata.num_rows, dtype=bool)
    return selection.matches(parquet.read_row_group(group, columns=columns, use_threads=False))


def read_all(
    files: Iterable[Facts],
    columns: Sequence[str],
    selection: Selection = ALL_ROWS,
    *,
    vectors: bool = True,
    reduce: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> Block:
    """Read the matching rows of files as one block, as `blocks` does; open only files that can match.

    `reduce` is applied to each block's vectors as it is read, so only the narrower results are held.
    """

    def read(part: Facts) -> list[Block]:
        found = blocks(part, columns, selection, vectors=vectors)
        return [Block(rows, reduce(numbers) if reduce else numbers) for rows, numbers in found]

    near = [facts for facts in files if selection.may_have(facts.file) and selection.may_be_in(facts)]
    found = [block for piece in in_parallel(read, parts(near)) for block in piece]
    return join(found) if found else Block(OTHERS.empty_table().select(columns), np.empty((0, 0), np.float32))


def join(found: Iterable[Block]) -> Block:
    """Return blocks, at least one, as one."""
    rows, vectors = zip(*found, strict=True)
    return Block(pa.concat_tables(rows, promote_options="permissive"), np.concatenate(vectors))


def embedding_array(column: pa.Array, facts: Facts) -> NDArray[np.float32]:
    """Return a column, of at least one row, as (N, width) float32; no copy of float32.

    Published files have tensors, files written through pandas have lists, compact copies have bytes with an
    affine map.
    """
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    if storage.null_count:
        raise ValueError(f"got {storage.null_count} rows without an embedding; expected one in each")
    lengths = pc.list_value_length(storage).unique().to_pylist()
    if len(lengths) > 1:
        raise ValueError(f"got embeddings of {sorted(lengths)} numbers in one file; expected one length")
    numbers = storage.flatten().to_numpy(zero_copy_only=False).reshape(len(storage), lengths[0])
    if facts.quantization is not None:
        return facts.quantization.restore(numbers)
    return np.asarray(numbers, dtype=np.float32)
