"""Reading a results file: from S3, only the parts that are asked for are fetched."""

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
"""Row groups kept while rows are taken: rows of earlier runs and of the last one alternate when sorted."""


RESULTS_PREFIX = "chip_embeddings/"
"""Begins the key of every results file in the work store."""


def results_key(tile: str, fingerprint: Fingerprint) -> str:
    """Key of a tile's results in the work store: those of each fingerprint apart from the others'."""
    return f"{RESULTS_PREFIX}{fingerprint.folder}/{tile}.parquet"


class KnownChip(NamedTuple):
    """A row of earlier results, without its vector.

    Attributes:
        key: `chip_key` of its URL.
        etag: Of the object that was read.
        window: Of the chip, row by row from 0.
        reason: Why the chip was skipped; None where it was embedded.
        reader: `chips.READER_VERSION` that it was read with.
        nodata: Share of its pixels without data; None where it was skipped.
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
        header: What the file says of itself.
    """

    def __init__(self, source: BinaryIO, tile: str) -> None:
        """Read the footer.

        Args:
            source: The file, which is closed with this.
            tile: MGRS code.

        Raises:
            OSError, KeyError, TypeError, ValueError: If this is no results file, or another version's.
        """
        self.tile = tile
        self._source = source
        self._file = pq.ParquetFile(source)
        said = self._file.metadata.metadata or {}
        self.header = ResultsHeader.from_metadata(said)
        of_tile = said.get(TILE.encode(), tile.encode()).decode()  # earlier versions did not say
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
        """The results of a tile, or None where there are none, or none that this version can read.

        A file that cannot be read counts as none: it is made again from the chips.

        Args:
            store: Store of results.
            tile: MGRS code.
            fingerprint: Of the results.
            piece: A piece of the results to open in their stead.

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
        except (KeyError, TypeError, ValueError, pa.ArrowException) as error:  # pyarrow's: no Parquet file
            source.close()
            reason: Exception = error
        except OSError as error:
            source.close()
            reason = damaged(error)  # raises what is an error of the disk
        name = piece.url if piece else store.url(results_key(tile, fingerprint))
        log.warning("%s is not used: expected results of tile %s; %r", name, tile, reason)
        return None

    @property
    def rows(self) -> int:
        """Rows in the file, as its footer counts them."""
        return int(self._file.metadata.num_rows)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns of all rows, in the file's order.

        Raises:
            DamagedFileError: If the pages do not hold what the footer says.
        """
        with _damage_named():
            table = self._file.read(columns=list(names))
            table.validate(full=True)  # also that text is UTF-8
        return table

    def chips(self) -> list[KnownChip]:
        """Each row's chip, in the file's order.

        Raises:
            DamagedFileError: As `columns`.
        """
        table = self.columns(["source_url", "etag", "window", "reason", "reader", "nodata"])
        rows = zip(*(column.to_pylist() for column in table.itercolumns()), strict=True)
        return [KnownChip(chip_key(url, self.tile), *facts) for url, *facts in rows]

    def sample(self, names: Sequence[str], max_bytes: int) -> Iterator[pa.Table]:
        """Some columns, a row group at a time: all of them, or some spread evenly over the file.

        Args:
            names: Columns.
            max_bytes: Of vectors, about, in all that is read; one row group is read in any case.

        Raises:
            DamagedFileError: As `columns`.
        """
        groups = self._file.num_row_groups
        stride = max(1, math.ceil(4 * self.header.provenance.width * self.rows / max_bytes))
        for group in range(0, groups, stride):
            with _damage_named():
                table = self._file.read_row_group(group, columns=list(names))
            yield table

    def take(self, rows: Iterable[int]) -> Iterator[pa.Table]:
        """Rows in the order asked for, in tables of neighbours; holds at most `GROUPS_HELD` row groups.

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
        with _damage_named():
            return self._file.read_row_group(index)


@contextmanager
def _damage_named() -> Iterator[None]:
    """Turns pyarrow's complaints about a file's pages into ours."""
    try:
        yield
    except DAMAGE as error:
        raise damaged(error) from error
