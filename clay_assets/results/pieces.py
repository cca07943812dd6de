"""Pieces of a tile's results, stored while the tile is embedded, so that a killed run loses little.

`embedding.plan` merges pieces in a later run. They have a prefix of their own: one listing finds those of
every tile, and listings of results do not show them.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Self

from clay_assets.results.counts import TileCounts
from clay_assets.results.header import Fingerprint, Provenance, ResultsHeader, chips_digest
from clay_assets.results.outcomes import Outcome
from clay_assets.results.writer import ResultsWriter
from clay_assets.storage import FolderMissing, StorageError, Store, StoredObject

log = logging.getLogger(__name__)

PIECES_PREFIX = "chip_pieces/"  # begins the key of every piece in the work store


@dataclass(frozen=True)
class PieceLimits:
    """Limits of a piece, which is stored when the first is reached."""

    chips: int = 256
    seconds: float = 60.0  # after the first chip of the piece was finished


def pieces_prefix(tile: str, fingerprint: Fingerprint) -> str:
    """Return the prefix of the keys of a tile's pieces of one fingerprint."""
    return f"{PIECES_PREFIX}{tile}/{fingerprint.folder}/"


def find_pieces(work: Store) -> Mapping[str, Sequence[StoredObject]]:
    """List the pieces that runs left, by tile, each tile's in the order of their keys."""
    found: dict[str, list[StoredObject]] = defaultdict(list)
    with suppress(FolderMissing):  # nothing was embedded yet
        for item in work.list(PIECES_PREFIX):
            found[PurePosixPath(item.url).parts[-3]].append(item)
    return found


@dataclass
class _Piece:
    """The piece being written."""

    writer: ResultsWriter
    counts: TileCounts
    began: float = field(default_factory=time.monotonic)


class PieceWriter:
    """Stores a tile's outcomes in pieces, in addition to its results. Use as a context manager.

    A tile that ends before the first limit costs no request. One piece at a time is in a local file, which is
    removed at the end.
    """

    def __init__(
        self, work: Store, tile: str, provenance: Provenance, chips: int, limits: PieceLimits
    ) -> None:
        """Prepare to write; `chips` is the number of chips in the tile's inventory."""
        self._work, self._tile, self._provenance = work, tile, provenance
        self._chips, self._limits = chips, limits
        self._piece: _Piece | None = None
        self._keys: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._piece is not None:
            self._piece.writer.__exit__()

    def add(self, outcome: Outcome) -> None:
        """Append the outcome of one chip; store the piece if it reaches a limit."""
        if self._piece is None:
            made = self._provenance
            self._piece = _Piece(ResultsWriter(made.width), TileCounts(dim=made.shape[-1]))
        piece = self._piece
        piece.writer.add(outcome)
        piece.counts.count(outcome)
        seconds = time.monotonic() - piece.began
        if piece.counts.read >= self._limits.chips or seconds >= self._limits.seconds:
            self._piece = None
            with piece.writer:
                self._store(piece, seconds)

    def remove(self) -> None:
        """Remove the stored pieces once the tile's results hold their chips."""
        remove_pieces(self._work, self._tile, self._keys)

    def _store(self, piece: _Piece, seconds: float) -> None:
        chips, summary = piece.counts.accounted, piece.counts.numbers(seconds)
        remaining = max(1, self._chips - len(chips))  # never complete by itself
        header = ResultsHeader(self._provenance, chips_digest(self._tile, chips), summary, remaining)
        key = f"{pieces_prefix(self._tile, self._provenance.fingerprint)}{len(self._keys) + 1:04}.parquet"
        try:
            piece.writer.store(self._work, self._tile, header, key)
            self._keys.append(key)
        except StorageError as error:  # the tile's own file may still be stored
            message = "%d finished chips of tile %s would be lost by a kill: %s"
            log.warning(message, len(chips), self._tile, error)


def remove_pieces(work: Store, tile: str, pieces: Iterable[str | StoredObject]) -> None:
    """Remove pieces whose chips the tile's results hold."""
    for piece in pieces:
        try:
            work.delete(piece)
        except StorageError as error:  # the next run merges it again without effect
            log.warning("a piece of tile %s stays: %s", tile, error)
