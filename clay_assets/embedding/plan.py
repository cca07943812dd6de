"""Plans a tile: reads its inventory and earlier results, and lists the chips to embed.

Does not belong here: the comparison (`state.comparison`), embedding (`tile`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from clay_assets.parquet import DamagedFileError
from clay_assets.results import Fingerprint, ResultsHeader, Target
from clay_assets.state.comparison import compare, is_complete
from clay_assets.storage import Store, StoredObject

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TilePlan:
    """The chips of a tile to embed, and the results to keep.

    Attributes:
        tile: MGRS code.
        chips: Its inventory.
        fingerprint: Fingerprint of its results.
        header: Header of the stored results; None if there are no valid ones.
        kept: Rows of those results that are still valid, in the file's order.
        todo: Chips to embed, in the order of the inventory.
        is_current: Whether the stored results are complete.
    """

    tile: str
    chips: Sequence[StoredObject]
    fingerprint: Fingerprint
    header: ResultsHeader | None = None
    kept: Sequence[int] = ()
    todo: Sequence[StoredObject] = ()
    is_current: bool = False


def plan_tile(
    work: Store,
    tile: str,
    chips: Sequence[StoredObject],
    target: Target,
    *,
    force: bool = False,
    retry_skipped: bool = False,
) -> TilePlan:
    """Compare a tile's inventory with its stored results.

    Args:
        work: Store of results.
        tile: MGRS code.
        chips: Its inventory.
        target: Which results count as current.
        force: Embed every chip again, even if its results are current.
        retry_skipped: Read skipped chips again.

    Raises:
        StorageError: If the store refuses.
    """
    results = target.results(work, tile)
    if results is None:
        return TilePlan(tile, chips, target.preferred, todo=chips)
    with results:
        header = results.header
        fingerprint = header.provenance.fingerprint
        if force:
            return TilePlan(tile, chips, fingerprint, todo=chips)
        limit = target.max_nodata
        if is_complete(tile, chips, header, max_nodata=limit) and not (
            retry_skipped and header.summary.skipped
        ):
            return TilePlan(tile, chips, fingerprint, header, is_current=True)
        try:
            rows = results.chips()
        except DamagedFileError as error:
            log.warning("the results of tile %s are recomputed: %s", tile, error)
            return TilePlan(tile, chips, fingerprint, todo=chips)
    found = compare(tile, chips, header, rows, max_nodata=limit, retry_skipped=retry_skipped)
    return TilePlan(tile, chips, fingerprint, header, found.kept, found.to_embed)
