"""Pieces of a tile's results, stored while the tile is embedded, so that a killed run loses little.

`embedding.fold` merges pieces in a later run. They have a prefix of their own: one listing finds those of
every tile, and listings of results do not show them.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import TracebackType
from typing import Self

from clay_assets.results.fingerprint import Fingerprint, chips_digest
from clay_assets.results.header import Provenance, ResultsHeader, TileSummary
from clay_assets.results.outcomes import Embedded, Outcome
from clay_assets.results.writer import ResultsWriter
from clay_assets.storage import FolderMissing, StorageError, Store, StoredObject

log = logging.getLogger(__name__)

PIECES_PREFIX = "chip_pieces/"
"""Begins the key of every piece in the work store."""


@dataclass(frozen=True)
class PieceLimits:
    """Limits of a piece, which is stored when the first is reached.

    Attributes:
        chips: Number of chips in a piece.
        seconds: Time after the first chip of a piece was finished.
    """

    chips: int = 256
    seconds: float = 60.0


def pieces_prefix(tile: str, fingerprint: Fingerprint) -> str:
    """Return the prefix of the keys of a tile's pieces of one fingerprint."""
    return f"{PIECES_PREFIX}{tile}/{fingerprint.folder}/"


def find_pieces(work: Store) -> Mapping[str, Sequence[StoredObject]]:
    """List the pieces that runs left, by tile, each tile's in the order of their keys.

    Raises:
        StorageError: If the store refuses.
    """
    found: dict[str, list[StoredObject]] = {}
    with suppress(FolderMissing):  # nothing was embedded yet
        for item in work.list(PIECES_PREFIX):
            tile = PurePosixPath(item.url).parts[-3]
            found.setdefault(tile, []).append(item)
    return found


@dataclass
class _Piece:
    """The piece being written."""

    writer: ResultsWriter
    began: float
    chips: list[StoredObject] = field(default_factory=list)
    embedded: int = 0


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._piece is not None:
            self._piece.writer.__exit__(kind, error, trace)

    def add(self, outcome: Outcome) -> None:
        """Append the outcome of one chip; store the piece if it reaches a limit."""
        if self._piece is None:
            self._piece = _Piece(ResultsWriter(self._provenance.width), time.monotonic())
        piece = self._piece
        piece.writer.add(outcome)
        piece.chips.append(outcome.chip)
        piece.embedded += isinstance(outcome, Embedded)
        seconds = time.monotonic() - piece.began
        if len(piece.chips) >= self._limits.chips or seconds >= self._limits.seconds:
            self._piece = None
            with piece.writer:
                self._store(piece, seconds)

    def remove(self) -> None:
        """Remove the stored pieces once the tile's results hold their chips."""
        remove_pieces(self._work, self._tile, self._keys)

    def _store(self, piece: _Piece, seconds: float) -> None:
        summary = TileSummary(
            embedded=piece.embedded,
            skipped=[],  # counted from the rows when the piece is merged
            seconds=seconds,
            encoded=piece.embedded,
            bytes_read=sum(chip.size for chip in piece.chips),
            bounds=[],
        )
        header = ResultsHeader(
            self._provenance,
            digest=chips_digest(self._tile, piece.chips),
            summary=summary,
            remaining=max(1, self._chips - len(piece.chips)),  # never complete by itself
        )
        key = f"{pieces_prefix(self._tile, self._provenance.fingerprint)}{len(self._keys) + 1:04}.parquet"
        try:
            piece.writer.store(self._work, self._tile, header, key)
        except StorageError as error:  # the tile's own file may still be stored
            message = "%d finished chips of tile %s would be lost by a kill: %s"
            log.warning(message, len(piece.chips), self._tile, error)
        else:
            self._keys.append(key)


def remove_pieces(work: Store, tile: str, pieces: Iterable[str | StoredObject]) -> None:
    """Remove pieces whose chips the tile's results hold."""
    for piece in pieces:
        try:
            work.delete(piece)
        except StorageError as error:  # the next run merges it again without effect
            log.warning("a piece of tile %s stays: %s", tile, error)
