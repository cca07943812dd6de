"""Pieces of a tile's results, stored while the tile is embedded: what a process that is killed leaves behind.

Belongs here: when a piece is stored, under which key, and removing it. Does not belong here: taking pieces up
in a later run (`embedding.fold`).

They have a prefix of their own: one listing a run finds those of every tile, and what looks at results does
not meet them.
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
    """When the chips finished so far are stored: at whichever limit is met first.

    Attributes:
        chips: In a piece, at most.
        seconds: After the first chip of a piece was finished.
    """

    chips: int = 256
    seconds: float = 60.0


def pieces_prefix(tile: str, fingerprint: Fingerprint) -> str:
    """Begins the keys of a tile's pieces of one fingerprint."""
    return f"{PIECES_PREFIX}{tile}/{fingerprint.folder}/"


def find_pieces(work: Store) -> Mapping[str, Sequence[StoredObject]]:
    """The pieces that runs left behind, by tile, each tile's in the order of their keys; from one listing.

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
    """The piece being written: its file, and what the footer will say of it."""

    writer: ResultsWriter
    began: float
    chips: list[StoredObject] = field(default_factory=list)
    embedded: int = 0


class PieceWriter:
    """Stores a tile's outcomes piece by piece, beside its results. Use as a context manager.

    A tile that ends before the first limit costs no request. One piece at a time is in a local file, which is
    gone afterwards.
    """

    def __init__(self, work: Store, tile: str, making: Provenance, chips: int, limits: PieceLimits) -> None:
        """Describe the pieces; nothing is written yet.

        Args:
            work: Store of results.
            tile: MGRS code.
            making: How the vectors are made.
            chips: In the tile's inventory.
            limits: When a piece is stored.
        """
        self._work, self._tile, self._making = work, tile, making
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
        """Append what became of one chip; stores the piece where that meets a limit."""
        if self._piece is None:
            self._piece = _Piece(ResultsWriter(self._making.width), time.monotonic())
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
        """Remove the stored pieces: the tile's own results hold their chips now."""
        remove_pieces(self._work, self._tile, self._keys)

    def _store(self, piece: _Piece, seconds: float) -> None:
        summary = TileSummary(
            embedded=piece.embedded,
            skipped=[],  # counted from the rows when the piece is taken up
            seconds=seconds,
            encoded=piece.embedded,
            bytes_read=sum(chip.size for chip in piece.chips),
            bounds=[],
        )
        header = ResultsHeader(
            self._making,
            digest=chips_digest(self._tile, piece.chips),
            summary=summary,
            remaining=max(1, self._chips - len(piece.chips)),  # never complete by itself
        )
        key = f"{pieces_prefix(self._tile, self._making.fingerprint)}{len(self._keys) + 1:04}.parquet"
        try:
            piece.writer.store(self._work, self._tile, header, key)
        except StorageError as error:  # whether the tile's own file can be stored is what matters
            log.warning(
                "%d finished chips of tile %s are not kept against a kill: %s",
                len(piece.chips),
                self._tile,
                error,
            )
        else:
            self._keys.append(key)


def remove_pieces(work: Store, tile: str, pieces: Iterable[str | StoredObject]) -> None:
    """Remove pieces whose chips the tile's results hold."""
    for piece in pieces:
        try:
            work.delete(piece)
        except StorageError as error:  # the next run takes it up again, and finds nothing new
            log.warning("a piece of tile %s stays: %s", tile, error)
