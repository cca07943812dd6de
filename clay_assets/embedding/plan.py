"""What is left to do of each tile: its inventory, compared with the results of earlier runs.

Not here: doing it (`embedding`), or looking at tiles from outside of a run (`tile_state`).
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from clay_assets.parquet import DamagedFileError
from clay_assets.results import ResultsHeader, TileResults
from clay_assets.results.fingerprint import Fingerprint, chips_digest
from clay_assets.storage import StorageError, Store, StoredObject
from clay_assets.tiles.inventory import read_inventory

log = logging.getLogger(__name__)

LOOKUPS = 16
"""Tiles whose state is looked up at a time: each takes two or three small requests."""


@dataclass(frozen=True)
class TilePlan:
    """What is left to do of a tile.

    Attributes:
        tile: MGRS code.
        chips: Its inventory.
        header: Of its results in the store; None where there are none that hold.
        kept: Rows of those results that still hold, in the file's order.
        todo: Chips to embed, in the order of the inventory.
        problem: Why the tile cannot be planned; it is raised when the tile's turn comes.
    """

    tile: str
    chips: Sequence[StoredObject] = ()
    header: ResultsHeader | None = None
    kept: Sequence[int] = ()
    todo: Sequence[StoredObject] = ()
    problem: Exception | None = None

    @property
    def is_current(self) -> bool:
        """Whether the results in the store are complete as they are."""
        return self.header is not None and _is_complete(self.header, self.chips)


def plan_tiles(
    work: Store, tiles: Sequence[str], fingerprint: Fingerprint, *, force: bool = False
) -> dict[str, TilePlan]:
    """Look up many tiles at once.

    Args:
        work: Store of inventories and results.
        tiles: MGRS codes.
        fingerprint: Of the vectors wanted; results of another are stale.
        force: Embed every chip again, whatever is there.

    Returns:
        A plan for each tile, in the order given; one that could not be looked up says why in `problem`.

    Raises:
        StorageError: If the trouble is systemic: no other tile would fare better.
    """

    def plan(tile: str) -> TilePlan:
        try:
            return _plan_tile(work, tile, fingerprint, force=force)
        except StorageError as error:
            if error.systemic:
                raise
            return TilePlan(tile, problem=error)
        except LookupError as error:
            return TilePlan(tile, problem=error)

    with ThreadPoolExecutor(LOOKUPS, thread_name_prefix="plan") as pool:
        return dict(zip(tiles, pool.map(plan, tiles), strict=True))


def _plan_tile(work: Store, tile: str, fingerprint: Fingerprint, *, force: bool) -> TilePlan:
    chips = read_inventory(work, tile)
    results = None if force else TileResults.open(work, tile)
    if results is None:
        return TilePlan(tile, chips, todo=chips)
    with results:
        header = results.header
        if header.making.fingerprint != fingerprint:
            return TilePlan(tile, chips, todo=chips)
        if _is_complete(header, chips):
            return TilePlan(tile, chips, header)
        try:
            rows = {chip: row for row, chip in enumerate(results.chips())}
        except DamagedFileError as error:  # as good as none: what it held is made again from the chips
            log.warning("the results of tile %s are made anew: %s", tile, error)
            return TilePlan(tile, chips, todo=chips)
    kept = sorted(rows[chip.url, chip.etag] for chip in chips if (chip.url, chip.etag) in rows)
    todo = [chip for chip in chips if (chip.url, chip.etag) not in rows]
    return TilePlan(tile, chips, header, kept, todo)


def _is_complete(header: ResultsHeader, chips: Sequence[StoredObject]) -> bool:
    """Whether results account for exactly these chips, in a run that came to its end.

    Results of a run that was stopped stay unfinished also when the chips it left are gone from the bucket:
    they are written once more, so that they can be published.
    """
    return header.digest == chips_digest(chips) and not header.left
