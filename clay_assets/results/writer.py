"""Writing a results file piece by piece, so that memory does not grow with the tile."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clay_assets.chips import READER_VERSION
from clay_assets.results.header import ResultsHeader
from clay_assets.results.outcomes import Embedded, Outcome, Skipped
from clay_assets.results.reader import results_key
from clay_assets.results.schema import results_schema
from clay_assets.storage import Store

PIECE_BYTES = 16 * 2**20
"""Vectors held before they are written as one row group."""


class ResultsWriter:
    """Writes a tile's results into a local file, then stores it as one object.

    Use as a context manager: the local file is gone afterwards, whether it was stored or not.
    """

    def __init__(self, width: int) -> None:
        """Begin a file.

        Args:
            width: Numbers in one chip's embedding.
        """
        self._schema = results_schema(width)
        self._folder = tempfile.TemporaryDirectory(prefix="clay-results-")
        self._path = Path(self._folder.name) / "results.parquet"
        # Vectors look random to a dictionary, and ZSTD takes 8 % off them: not worth its time between assets.
        self._writer = pq.ParquetWriter(self._path, self._schema, compression="lz4", use_dictionary=False)
        self._outcomes: list[Outcome] = []
        self._tables: list[pa.Table] = []
        self._waiting = 0  # rows in these two
        self._piece = max(1, PIECE_BYTES // (4 * width))  # rows of a row group

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
        finally:
            self._folder.cleanup()

    def add(self, outcome: Outcome) -> None:
        """Append what became of one chip."""
        self._outcomes.append(outcome)
        self._wait_for(1)

    def copy(self, table: pa.Table) -> None:
        """Append rows of an earlier file."""
        self._gather()
        self._tables.append(table.cast(self._schema))
        self._wait_for(table.num_rows)

    def store(self, store: Store, tile: str, header: ResultsHeader) -> str:
        """Finish the file and put it in the store; returns its URL.

        Raises:
            StorageError: If the store refuses.
        """
        self._write()
        self._writer.add_key_value_metadata(header.to_metadata())
        self._writer.close()
        key = results_key(tile, header.making.fingerprint)
        store.put(key, self._path)
        return store.url(key)

    def _wait_for(self, rows: int) -> None:
        """Hold more rows, until they fill a row group: many small ones would make every later read slow."""
        self._waiting += rows
        if self._waiting >= self._piece:
            self._write()

    def _gather(self) -> None:
        if self._outcomes:
            self._tables.append(_to_table(self._outcomes, self._schema))
            self._outcomes = []

    def _write(self) -> None:
        self._gather()
        if self._tables:
            self._writer.write_table(pa.concat_tables(self._tables))
            self._tables, self._waiting = [], 0


def _to_table(outcomes: Sequence[Outcome], schema: pa.Schema) -> pa.Table:
    rows: dict[str, list[Any]] = {name: [] for name in schema.names if name != "embeddings"}
    for outcome in outcomes:
        embedded = outcome if isinstance(outcome, Embedded) else None
        skipped = outcome if isinstance(outcome, Skipped) else None
        values: Mapping[str, Any] = {
            "source_url": outcome.chip.url,
            "etag": outcome.chip.etag,
            "size": outcome.chip.size,
            "date": embedded and embedded.date,
            "geometry": embedded and embedded.footprint,
            "nodata": embedded and embedded.nodata,
            "thumbnail": embedded and embedded.thumbnail,
            "reason": skipped and skipped.reason,
            "detail": skipped and skipped.detail,
            "reader": READER_VERSION,
        }
        for name, value in values.items():
            rows[name].append(value)
    width = schema.field("embeddings").type.list_size
    # Skipped chips take a row of zeros under a null: Arrow's fixed-size lists have no holes.
    vectors: NDArray[np.float32] = np.zeros((len(outcomes), width), dtype=np.float32)
    for row, outcome in zip(vectors, outcomes, strict=True):
        if isinstance(outcome, Embedded):
            row[:] = outcome.vector.reshape(-1)
    missing = pa.array([isinstance(outcome, Skipped) for outcome in outcomes])
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width, mask=missing)
    arrays = [
        column if name == "embeddings" else pa.array(rows[name], schema.field(name).type)
        for name in schema.names
    ]
    return pa.table(arrays, schema=schema)
