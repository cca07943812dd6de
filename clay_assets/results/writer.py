"""Writes a results file in pieces, so that memory does not grow with the tile."""

import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.parquet import TILE
from clay_assets.results.header import ResultsHeader
from clay_assets.results.outcomes import Outcome, results_schema, rows_of
from clay_assets.results.reader import results_key
from clay_assets.storage import Store, temporary_errors

GROUP_BYTES = 16 * 2**20  # of vectors in a row group


class ResultsWriter:
    """Writes a tile's results into a local file, then stores it as one object.

    Use as a context manager, which removes the local file. Its methods raise a `StorageError` if the
    temporary folder is full or cannot be written, or the store refuses.
    """

    def __init__(self, width: int) -> None:
        """Begin a file of embeddings of `width` numbers."""
        self._schema = results_schema(width)
        with temporary_errors(), ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clay-results-"))
            self._path = Path(folder) / "results.parquet"
            # We open the file: pyarrow leaves a file that it opened open if closing the writer fails.
            self._file = stack.enter_context(pa.OSFile(str(self._path), "wb"))
            # Dictionaries do not help vectors, and ZSTD saves only 8 %: not worth its time here.
            self._writer = pq.ParquetWriter(self._file, self._schema, compression="lz4", use_dictionary=False)
            self._stack = stack.pop_all()
        self._rows: list[dict[str, Any]] = []  # of added outcomes
        self._tables: list[pa.Table] = []
        self._pending = 0  # rows in these two
        self._group = max(1, GROUP_BYTES // (4 * width))  # rows of a row group

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A full disk raised an error earlier, and the file is removed with its folder.
        with self._stack, suppress(OSError):
            self._writer.close()

    def add(self, outcome: Outcome) -> None:
        """Append the outcome of one chip."""
        rows = list(rows_of(outcome))
        self._rows += rows
        self._hold(len(rows))

    def copy(self, table: pa.Table) -> None:
        """Append rows of an earlier file."""
        self._gather()
        self._tables.append(table.cast(self._schema))
        self._hold(table.num_rows)

    def store(self, store: Store, tile: str, header: ResultsHeader, key: str = "") -> str:
        """Finish the file, store it and return its URL. May be called again after an interrupt.

        An empty `key` stands for that of the tile's results.
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
        if self._pending >= self._group:
            self._write()

    def _gather(self) -> None:
        if self._rows:
            self._tables.append(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def _write(self) -> None:
        self._gather()
        if self._tables:
            with temporary_errors():
                self._writer.write_table(pa.concat_tables(self._tables))
            self._tables, self._pending = [], 0
