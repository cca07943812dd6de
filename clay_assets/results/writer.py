"""Writes a results file in pieces, so that memory does not grow with the tile."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.chips import READER_VERSION
from clay_assets.parquet import TILE
from clay_assets.results.header import ResultsHeader
from clay_assets.results.outcomes import Embedded, Outcome, Skipped
from clay_assets.results.reader import results_key
from clay_assets.results.schema import results_schema
from clay_assets.storage import Store, temporary_errors

PIECE_BYTES = 16 * 2**20
"""Bytes of vectors in a row group."""


class ResultsWriter:
    """Writes a tile's results into a local file, then stores it as one object.

    Use as a context manager, which removes the local file.
    """

    def __init__(self, width: int) -> None:
        """Begin a file of embeddings of `width` numbers.

        Raises:
            StorageError: If the temporary folder is full or cannot be written, here and while writing.
        """
        self._schema = results_schema(width)
        with temporary_errors(), ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clay-results-"))
            self._path = Path(folder) / "results.parquet"
            # We open the file: pyarrow leaves a file that it opened open if closing the writer fails.
            self._file = stack.enter_context(pa.OSFile(str(self._path), "wb"))
            # Dictionaries do not help vectors, and ZSTD saves only 8 %: not worth its time here.
            self._writer = pq.ParquetWriter(self._file, self._schema, compression="lz4", use_dictionary=False)
            self._stack = stack.pop_all()
        self._outcomes: list[Outcome] = []
        self._tables: list[pa.Table] = []
        self._pending = 0  # rows in these two
        self._piece = max(1, PIECE_BYTES // (4 * width))  # rows of a row group

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A full disk raised an error earlier, and the file is removed with its folder.
        with self._stack, suppress(OSError):
            self._writer.close()

    def add(self, outcome: Outcome) -> None:
        """Append the outcome of one chip."""
        self._outcomes.append(outcome)
        self._hold(len(outcome.footprints) if isinstance(outcome, Embedded) else 1)

    def copy(self, table: pa.Table) -> None:
        """Append rows of an earlier file."""
        self._gather()
        self._tables.append(table.cast(self._schema))
        self._hold(table.num_rows)

    def store(self, store: Store, tile: str, header: ResultsHeader, key: str = "") -> str:
        """Finish the file, store it and return its URL. May be called again after an interrupt.

        Args:
            store: Store of results.
            tile: MGRS code.
            header: Metadata of the file.
            key: Key in the store; that of the tile's results if empty.

        Raises:
            StorageError: If the store refuses.
        """
        if self._writer.is_open:
            self._write()
            self._writer.add_key_value_metadata({TILE: tile, **header.to_metadata()})
        with temporary_errors():
            self._writer.close()
            self._file.close()
        key = key or results_key(tile, header.provenance.fingerprint)
        store.put(key, self._path)
        return store.url(key)

    def _hold(self, rows: int) -> None:
        """Count pending rows until they fill a row group: small groups make every later read slow."""
        self._pending += rows
        if self._pending >= self._piece:
            self._write()

    def _gather(self) -> None:
        if self._outcomes:
            self._tables.append(_to_table(self._outcomes, self._schema))
            self._outcomes = []

    def _write(self) -> None:
        self._gather()
        if self._tables:
            with temporary_errors():
                self._writer.write_table(pa.concat_tables(self._tables))
            self._tables, self._pending = [], 0


def _to_table(outcomes: Sequence[Outcome], schema: pa.Schema) -> pa.Table:
    rows = [row for outcome in outcomes for row in _rows(outcome)]
    width = schema.field("embeddings").type.list_size
    # Arrow's fixed-size lists need values under a null: zeros for skipped chips.
    zeros = np.zeros((1, width), dtype=np.float32)
    vectors = [
        outcome.vectors.reshape(-1, width) if isinstance(outcome, Embedded) else zeros for outcome in outcomes
    ]
    missing = pa.array([row["reason"] is not None for row in rows])
    values = pa.array(np.concatenate(vectors).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(values, width, mask=missing)
    arrays = [
        column if field.name == "embeddings" else pa.array([row.get(field.name) for row in rows], field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def _rows(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Yield the rows of a chip, without its vectors."""
    chip = outcome.chip
    row = {"source_url": chip.url, "etag": chip.etag, "size": chip.size, "reader": READER_VERSION}
    if isinstance(outcome, Skipped):
        yield {**row, "window": 0, "reason": outcome.reason, "detail": outcome.detail}
        return
    windows = zip(outcome.footprints, outcome.thumbnails, strict=True)
    for window, (footprint, thumbnail) in enumerate(windows):
        image = {
            "date": outcome.date,
            "geometry": footprint,
            "thumbnail": thumbnail,
            "nodata": outcome.nodata,
        }
        yield {**row, **image, "window": window, "reason": None}
