"""Reads a results file: from S3, only the parts that are needed are fetched."""

import functools
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.parquet import DAMAGE, TILE, damaged
from clay_assets.results.fingerprint import Fingerprint, chip_key
from clay_assets.results.header import ResultsHeader
from clay_assets.results.schema import results_schema
from clay_assets.storage import ObjectMissing, Store, StoredObject

log = logging.getLogger(__name__)

GROUPS_HELD = 4
"""Row groups cached while rows are taken: sorted rows alternate between those of several runs."""

RESULTS_PREFIX = "chip_embeddings/"
"""Begins the key of every results file in the work store."""


def results_key(tile: str, fingerprint: Fingerprint) -> str:
    """Return the key of a tile's results in the work store."""
    return f"{RESULTS_PREFIX}{fingerprint.folder}/{tile}.parquet"


class KnownChip(NamedTuple):
    """A row of earlier results, without its vector.

    Attributes:
        key: `chip_key` of its URL.
        etag: ETag of the object that was read.
        window: Number of the window in the chip, row by row from 0.
        reason: Why the chip was skipped; None if it was embedded.
        reader: `chips.READER_VERSION` that it was read with.
        nodata: Share of its pixels without data; None if it was skipped.
    """

    key: str
    etag: str
    window: int
    reason: str | None
    reader: int
    nodata: float | None


class TileResults:
    """An open results file. Use as a context manager.

    Attributes:
        tile: MGRS code.
        header: The file's metadata.
    """

    def __init__(self, source: BinaryIO, tile: str) -> None:
        """Read the footer of a file, which is closed together with this object.

        Raises:
            OSError, KeyError, TypeError, ValueError: If this is not a results file, or one of another
                version.
        """
        self.tile = tile
        self._source = source
        self._file = pq.ParquetFile(source)
        metadata = self._file.metadata.metadata or {}
        self.header = ResultsHeader.from_metadata(metadata)
        of_tile = metadata.get(TILE.encode(), tile.encode()).decode()  # earlier versions lack the key
        if of_tile != tile:
            raise ValueError(f"got results of tile {of_tile}, expected those of {tile}")
        expected = results_schema(self.header.provenance.width)
        if self._file.schema_arrow != expected:
            raise ValueError(f"got the columns {self._file.schema_arrow}, expected {expected}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._source.close()

    @classmethod
    def open(
        cls, store: Store, tile: str, fingerprint: Fingerprint, piece: StoredObject | None = None
    ) -> Self | None:
        """Open a tile's results, or one piece of them.

        Returns None if the file is missing or of a format that this version cannot read; the caller then
        computes the results from the chips.

        Raises:
            StorageError: If the store refuses.
        """
        try:
            source = store.open(piece or results_key(tile, fingerprint))
        except ObjectMissing:
            return None
        try:
            results = cls(source, tile)
            if results.header.provenance.fingerprint != fingerprint:
                raise ValueError("a copy of results of another fingerprint")
            return results
        except (KeyError, TypeError, ValueError, pa.ArrowException) as error:  # pyarrow's: not a Parquet file
            source.close()
            reason: Exception = error
        except OSError as error:
            source.close()
            reason = damaged(error)  # raises errors of the disk
        name = piece.url if piece else store.url(results_key(tile, fingerprint))
        log.warning("%s is not used: expected results of tile %s; %r", name, tile, reason)
        return None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._file.metadata.num_rows)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Read some columns of all rows, in the file's order.

        Raises:
            DamagedFileError: If the pages do not match the footer.
        """
        with _damage_translated():
            table = self._file.read(columns=list(names))
            table.validate(full=True)  # also checks that text is UTF-8
        return table

    def chips(self) -> list[KnownChip]:
        """Read each row's chip, in the file's order.

        Raises:
            DamagedFileError: As `columns`.
        """
        table = self.columns(["source_url", "etag", "window", "reason", "reader", "nodata"])
        rows = zip(*(column.to_pylist() for column in table.itercolumns()), strict=True)
        return [KnownChip(chip_key(url, self.tile), *facts) for url, *facts in rows]

    def sample(self, names: Sequence[str], max_bytes: int) -> Iterator[pa.Table]:
        """Read some columns, one row group at a time: all of them, or some spread evenly over the file.

        Args:
            names: Columns.
            max_bytes: Limit of vectors read in total, approximate; at least one row group is read.

        Raises:
            DamagedFileError: As `columns`.
        """
        groups = self._file.num_row_groups
        stride = max(1, math.ceil(4 * self.header.provenance.width * self.rows / max_bytes))
        for group in range(0, groups, stride):
            with _damage_translated():
                table = self._file.read_row_group(group, columns=list(names))
            yield table

    def take(self, rows: Iterable[int]) -> Iterator[pa.Table]:
        """Read rows in the order given, in tables of neighbours; caches at most `GROUPS_HELD` row groups.

        Raises:
            DamagedFileError: As `columns`.
        """
        sizes = [self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups)]
        starts = np.concatenate(([0], np.cumsum(sizes))).astype(int)
        read = functools.lru_cache(GROUPS_HELD)(self._row_group)
        held, pending = -1, list[int]()
        for row in rows:
            group = int(np.searchsorted(starts, row, side="right")) - 1
            if group != held and pending:
                yield read(held).take(pending)
                pending = []
            held = group
            pending.append(row - int(starts[group]))
        if pending:
            yield read(held).take(pending)

    def _row_group(self, index: int) -> pa.Table:
        with _damage_translated():
            return self._file.read_row_group(index)


@contextmanager
def _damage_translated() -> Iterator[None]:
    """Translate pyarrow's errors about a file's pages."""
    try:
        yield
    except DAMAGE as error:
        raise damaged(error) from error
