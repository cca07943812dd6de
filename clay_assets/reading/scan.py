"""Opens files, and reads their rows a few megabytes at a time, several files at once."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clay_assets.parquet import DAMAGE, DamagedFileError, damaged
from clay_assets.reading.columns import embedding_array
from clay_assets.reading.facts import Facts, facts_of
from clay_assets.reading.files import SourceFile
from clay_assets.reading.selection import Selection

T = TypeVar("T")
R = TypeVar("R")

WORKERS = min(8, 2 * (os.cpu_count() or 1))
"""Files read at a time: decompression releases the GIL, and requests to a bucket overlap."""

WHOLE_BYTES = 32 * 2**20
"""A remote file up to this size is fetched by one request; of a larger one, only the needed parts are."""

BLOCK_BYTES = 8 * 2**20
"""Bytes of float32 vectors decoded at a time."""

NARROW_ROWS = 65_536
"""Rows decoded at a time without vectors."""


@dataclass(frozen=True)
class Task:
    """Row groups of a file that one thread reads."""

    file: SourceFile
    facts: Facts
    groups: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows.

    Attributes:
        rows: The requested columns, without the vectors.
        vectors: (N, width) float32; (N, 0) if vectors were not requested.
    """

    rows: pa.Table
    vectors: NDArray[np.float32]


@contextmanager
def opened(file: SourceFile, *, whole: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a file; if most of it will be read (`whole`), a remote file is fetched by one request.

    Raises:
        DamagedFileError: It is not a Parquet file; also raised while it is read.
        StorageError: The store refuses.
    """
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


def footers(files: Sequence[SourceFile]) -> list[Facts]:
    """Read each file's footer.

    Raises:
        DamagedFileError, StorageError: As `opened`.
        ValueError: A file has no embeddings.
    """

    def read(file: SourceFile) -> Facts:
        with opened(file) as parquet:
            try:
                return facts_of(parquet)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file.url} is not a file of embeddings: {error}") from error

    return list(in_parallel(read, files))


def in_parallel(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Call `work` for each item in `WORKERS` threads; yield the results in the items' order."""
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="clay-read") as pool:
        try:
            yield from pool.map(work, items)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def tasks(files: Sequence[SourceFile], facts: Sequence[Facts]) -> list[Task]:
    """Split files into tasks for one thread: small files whole, large ones by row group."""
    cut = []
    for file, fact in zip(files, facts, strict=True):
        groups = tuple(range(len(fact.groups)))
        pieces = [groups] if file.object.size <= WHOLE_BYTES else [(group,) for group in groups]
        cut += [Task(file, fact, piece) for piece in pieces]
    return cut


def blocks(
    task: Task, columns: Sequence[str], selection: Selection | None = None, *, vectors: bool = True
) -> Iterator[Block]:
    """Read the matching rows of a task, in their order.

    Row groups without a match are skipped. In the others, vectors are decoded block by block up to the last
    match, and only the matching ones are kept.

    Args:
        task: What to read.
        columns: Other than `embeddings`.
        selection: Rows to read; None: all.
        vectors: Whether to read the vectors.
    """
    chosen = selection or Selection()
    size = max(1, BLOCK_BYTES // (4 * task.facts.width)) if vectors else NARROW_ROWS
    with opened(task.file, whole=vectors and not chosen.columns) as parquet:
        for group in task.groups:
            matching: NDArray[np.bool_] | None = None  # all rows
            if chosen.columns:
                if not chosen.may_be_in_group(parquet.metadata.row_group(group)):
                    continue
                rows = parquet.read_row_group(group, columns=chosen.columns, use_threads=False)
                matching = chosen.matches(rows)
                if not matching.any():
                    continue
            yield from _group_blocks(parquet, group, columns, matching, task.facts, size, vectors)


def _group_blocks(
    parquet: pq.ParquetFile,
    group: int,
    columns: Sequence[str],
    matching: NDArray[np.bool_] | None,
    facts: Facts,
    size: int,
    vectors: bool,
) -> Iterator[Block]:
    names = [*columns, *(["embeddings"] if vectors else [])]
    start, end = 0, None if matching is None else int(np.flatnonzero(matching)[-1]) + 1
    for batch in parquet.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
        if end is not None and start >= end:
            return
        table = pa.Table.from_batches([batch])
        if matching is not None:
            kept = matching[start : start + len(batch)]
            table = table.filter(pa.array(kept))
        start += len(batch)
        if not len(table):
            continue
        numbers = np.empty((len(table), 0), dtype=np.float32)
        if vectors:
            numbers = embedding_array(table["embeddings"], facts)
        yield Block(table.select(list(columns)), numbers)
