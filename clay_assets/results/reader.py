"""Finds and reads results files: from S3, only the parts that are needed are fetched.

Functions that take a `Store` raise `StorageError` if the store refuses.
"""

import functools
import logging
import math
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import BinaryIO, Literal, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.parquet import DAMAGE, TILE, damaged
from clay_assets.results.header import Fingerprint, ResultsHeader, chip_key
from clay_assets.results.outcomes import results_schema
from clay_assets.storage import ObjectMissing, Store, StoredObject

log = logging.getLogger(__name__)

RESULTS_PREFIX = "chip_embeddings/"  # begins the key of every results file in the work store
GROUPS_HELD = 4  # row groups cached while rows are taken: sorted rows alternate between those of several runs
PRECISIONS: tuple[Literal["bf16", "fp32"], ...] = ("bf16", "fp32")  # accepted under `auto`, in this order


def results_key(tile: str, fingerprint: Fingerprint) -> str:
    """Return the key of a tile's results in the work store."""
    return f"{RESULTS_PREFIX}{fingerprint.folder}/{tile}.parquet"


class KnownChip(NamedTuple):
    """A row of earlier results, without its vector."""

    key: str  # `chip_key` of its URL
    etag: str  # of the object that was read
    window: int  # of the chip, row by row from 0
    reason: str | None  # why the chip was skipped; None if it was embedded
    reader: int  # `chips.READER_VERSION` that it was read with
    nodata: float | None  # share of its pixels without data; None if it was skipped


class TileResults:
    """An open results file, with its `tile` and `header`. Use as a context manager.

    Its methods raise `DamagedFileError` if the pages do not match the footer.
    """

    def __init__(self, source: BinaryIO, tile: str) -> None:
        """Read the footer of a file, which is closed together with this object; for `open`."""
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

    def __exit__(self, *_: object) -> None:
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
        """
        key = results_key(tile, fingerprint)
        try:
            source = store.open(piece or key)
        except ObjectMissing:
            return None
        try:
            results = cls(source, tile)
            if results.header.provenance.fingerprint != fingerprint:
                raise ValueError("a copy of results of another fingerprint")
            return results
        except (KeyError, TypeError, ValueError, *DAMAGE) as error:
            source.close()
            reason = damaged(error) if isinstance(error, OSError) else error  # raises errors of the disk
        name = piece.url if piece else store.url(key)
        log.warning("%s is not used: expected results of tile %s; %r", name, tile, reason)
        return None

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Read some columns of all rows, in the file's order."""
        with _damage_translated():
            table = self._file.read(columns=list(names))
            table.validate(full=True)  # also checks that text is UTF-8
        return table

    def chips(self) -> list[KnownChip]:
        """Read each row's chip, in the file's order."""
        table = self.columns(["source_url", "etag", "window", "reason", "reader", "nodata"])
        rows = zip(*(column.to_pylist() for column in table.itercolumns()), strict=True)
        return [KnownChip(chip_key(url, self.tile), *facts) for url, *facts in rows]

    def sample(self, names: Sequence[str], max_bytes: int) -> Iterator[pa.Table]:
        """Read some columns, one row group at a time: all of them, or some spread evenly over the file.

        Vectors of about `max_bytes` are read in total, and at least one row group.
        """
        size = 4 * self.header.provenance.width * self._file.metadata.num_rows
        for group in range(0, self._file.num_row_groups, max(1, math.ceil(size / max_bytes))):
            yield self._row_group(group, names)

    def take(self, rows: Iterable[int]) -> Iterator[pa.Table]:
        """Read rows in the order given, in tables of neighbours; caches at most `GROUPS_HELD` row groups."""
        groups = range(self._file.num_row_groups)
        ends = list(accumulate(self._file.metadata.row_group(group).num_rows for group in groups))
        read = functools.lru_cache(GROUPS_HELD)(self._row_group)
        for group, members in groupby(rows, lambda row: bisect(ends, row)):
            start = ends[group - 1] if group else 0
            yield read(group).take([row - start for row in members])

    def _row_group(self, index: int, names: Sequence[str] | None = None) -> pa.Table:
        with _damage_translated():
            return self._file.read_row_group(index, columns=names)


@contextmanager
def _damage_translated() -> Iterator[None]:
    """Translate pyarrow's errors about a file's pages."""
    try:
        yield
    except DAMAGE as error:
        raise damaged(error) from error


@dataclass(frozen=True)
class Target:
    """Target settings: which results count as current, and which fingerprint a tile without results gets.

    Under `auto` a tile keeps the precision of its results on any hardware: precisions differ by 2.4e-3, too
    little to embed an archive again.
    """

    fingerprints: Sequence[Fingerprint]  # of results that count as current, in the order of preference
    preferred: Fingerprint  # for a tile without results
    max_nodata: float = 1.0  # highest accepted share of a chip's pixels without data

    @classmethod
    def of(cls, settings: Fingerprint, best: str, max_nodata: float = 1.0) -> Self:
        """Resolve a precision of `auto`: any is current, and a tile without results gets the `best`."""
        if settings.precision != "auto":
            return cls((settings,), settings, max_nodata)
        either = tuple(replace(settings, precision=precision) for precision in PRECISIONS)
        return cls(either, replace(settings, precision=best), max_nodata)

    def results(self, work: Store, tile: str) -> TileResults | None:
        """Open a tile's current results; None if there are none. The caller closes them."""
        found = (TileResults.open(work, tile, fingerprint) for fingerprint in self.fingerprints)
        return next((results for results in found if results is not None), None)
