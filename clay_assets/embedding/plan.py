"""What to embed of a tile: its inventory compared with the results of earlier runs.

Belongs here: reading both. Does not belong here: the comparison (`state.comparison`), embedding (`tile`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from clay_assets.parquet import DamagedFileError
from clay_assets.results import ResultsHeader, TileResults
from clay_assets.results.fingerprint import Fingerprint
from clay_assets.state.comparison import compare, is_complete
from clay_assets.storage import Store, StoredObject

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TilePlan:
    """What to embed of a tile.

    Attributes:
        tile: MGRS code.
        chips: Its inventory.
        header: Of its results in the store; None where there are none that are valid.
        kept: Rows of those results that are still valid, in the file's order.
        todo: Chips to embed, in the order of the inventory.
        is_current: Whether the results in the store are complete as they are.
    """

    tile: str
    chips: Sequence[StoredObject]
    header: ResultsHeader | None = None
    kept: Sequence[int] = ()
    todo: Sequence[StoredObject] = ()
    is_current: bool = False


def plan_tile(
    work: Store, tile: str, chips: Sequence[StoredObject], fingerprint: Fingerprint, *, force: bool = False
) -> TilePlan:
    """Find out what to embed of a tile.

    Args:
        work: Store of results.
        tile: MGRS code.
        chips: Its inventory.
        fingerprint: Of the vectors wanted; results of another are stale.
        force: Embed every chip again, whatever is there.

    Raises:
        StorageError: If the store refuses.
    """
    results = None if force else TileResults.open(work, tile)
    if results is None:
        return TilePlan(tile, chips, todo=chips)
    with results:
        header = results.header
        differences = fingerprint.differences(header.making.fingerprint)
        try:
            rows = () if differences or is_complete(header, chips) else results.chips()
        except DamagedFileError as error:  # its chips are embedded again
            log.warning("the results of tile %s are made anew: %s", tile, error)
            return TilePlan(tile, chips, todo=chips)
    found = compare(chips, header, rows, differences)
    if differences:
        return TilePlan(tile, chips, todo=chips)
    return TilePlan(tile, chips, header, found.kept, found.todo, found.complete)
