"""The steps after a tile is embedded: publish its file, catalog it, check the outputs."""

from dataclasses import replace
from functools import partial

from clay_assets.pipeline.job import TileJob, TileOutcome
from clay_assets.publishing.publish import Published, publish_tile
from clay_assets.publishing.versions import published_files
from clay_assets.quality.examine import check_file, check_inventory, check_results
from clay_assets.quality.report import Part, Report
from clay_assets.results.target import Target
from clay_assets.storage import Store, again_if_replaced
from clay_assets.tiles.inventory import InventoryMissing, read_inventory


def publish_and_check(job: TileJob, target: Target | None, outcome: TileOutcome) -> TileOutcome:
    """Do a job's steps after the embedding of a tile; the returned outcome has the error, if any."""
    stores, tile = job.stores, outcome.tile
    try:
        if _is_empty(job, outcome):
            outcome = replace(outcome, empty=True)
        elif "publish" in job.steps and target is not None:
            publish = partial(
                publish_tile, stores.work, stores.output, tile, version=job.version, target=target
            )
            published = again_if_replaced(publish)
            outcome = replace(outcome, published=published)
            if stores.stac is not None:
                _catalog(published, stores.output, stores.stac)
        if job.check:
            outcome = replace(outcome, reports=again_if_replaced(partial(examine, job, tile, target)))
    except Exception as error:  # becomes the outcome of this tile; the others continue
        return replace(outcome, error=error)
    return outcome


def examine(job: TileJob, tile: str, target: Target | None, *, again: bool = False) -> dict[Part, Report]:
    """Check a tile's inventory, results and published file.

    An empty tile has neither results nor a file to check.

    Args:
        job: Only the outputs of its steps are checked.
        tile: MGRS code.
        target: Which results count as current; None: none do, because no run has used the checkpoint yet.
        again: Read everything, even if its present state was checked before.

    Raises:
        StorageError: If a store refuses.
    """
    stores = job.stores
    try:
        chips = read_inventory(stores.work, tile)
    except InventoryMissing as error:
        missing = Report(tile, missing=str(error))
        return {"inventory": missing, "results": missing, "file": missing}
    reports: dict[Part, Report] = {"inventory": check_inventory(tile, chips)}
    if chips and "embed" in job.steps:
        reports["results"] = check_results(stores.work, tile, chips, target, again=again)
    if chips and "publish" in job.steps:
        files = published_files(stores.output, job.version, tile).get(tile, [])
        reports["file"] = check_file(stores.work, stores.output, tile, files, again=again)
    return reports


def _is_empty(job: TileJob, outcome: TileOutcome) -> bool:
    if outcome.inventory is not None:
        return not outcome.inventory.chips
    return not read_inventory(job.stores.work, outcome.tile)


def _catalog(published: Published, output: Store, stac: Store) -> None:
    """Write the STAC Item of a published file."""
    from clay_assets.stac.catalog import publish_item  # most scripts write no catalog

    name = published.url.rpartition("/")[2]
    publish_item(output, stac, name, picture=published.picture, energy=published.energy)
