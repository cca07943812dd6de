"""The asset `chip_inventory`: what chips there are of each tile.

Only what Dagster has to do with it; the listing itself is in `clay_assets.tiles.inventory`.
https://docs.dagster.io/guides/build/assets/defining-assets
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import dagster as dg

from clay_assets.dagster.chip_embeddings import GPU_POOL
from clay_assets.dagster.ledger import TileLedger
from clay_assets.dagster.metadata import column_schema
from clay_assets.dagster.object_store import ObjectStore
from clay_assets.results.fingerprint import chips_digest
from clay_assets.storage import Store
from clay_assets.tiles.inventory import INVENTORY, Inventory, inventory_key, list_chips, write_inventory

LISTERS = 16
"""Tiles listed at a time; a LIST takes some 50 ms, most of it waiting."""


def build_chip_inventory(
    tiles: dg.PartitionsDefinition, backfill_policy: dg.BackfillPolicy
) -> dg.AssetsDefinition:
    """Make the asset.

    Args:
        tiles: The partitions.
        backfill_policy: How many of them go into one run of a backfill.
    """

    @dg.asset(
        partitions_def=tiles,
        backfill_policy=backfill_policy,
        # Dagster keeps in its queue only runs whose first step would have to wait. Without this, runs that
        # wait to embed would take up all places for runs, and none that publishes could start beside them.
        pool=GPU_POOL,
        group_name="clay",
        kinds={"s3"},
        code_version="1",
    )
    def chip_inventory(
        context: dg.AssetExecutionContext, chips: ObjectStore, work: ObjectStore
    ) -> dg.MaterializeResult:
        """What chips there are of a tile: URL, size and ETag of each, from a listing; no chip is read."""
        with (
            TileLedger(context) as ledger,
            _listings(chips.store(), work.store(), ledger.tiles) as listings,
        ):
            for tile, listing in listings.items():
                with ledger.tile(tile) as metadata:
                    metadata |= _metadata(tile, listing.result(), work.store())
        return dg.MaterializeResult()

    return chip_inventory


@contextmanager
def _listings(chips: Store, work: Store, tiles: Sequence[str]) -> Iterator[dict[str, Future[Inventory]]]:
    """Inventories of many tiles, on their way; those not begun when the block ends are not taken at all."""
    pool = ThreadPoolExecutor(LISTERS, thread_name_prefix="list")
    try:
        yield {tile: pool.submit(_take_inventory, chips, work, tile) for tile in tiles}
    finally:
        pool.shutdown(cancel_futures=True)


def _take_inventory(chips: Store, work: Store, tile: str) -> Inventory:
    inventory = list_chips(chips, tile)
    write_inventory(work, tile, inventory.chips)
    return inventory


def _metadata(tile: str, inventory: Inventory, work: Store) -> dict[str, Any]:
    return {
        "chips": len(inventory.chips),
        "bytes": sum(chip.size for chip in inventory.chips),
        "other objects": len(inventory.others),
        "chips digest": chips_digest(inventory.chips),
        "dagster/row_count": len(inventory.chips),
        "dagster/partition_row_count": len(inventory.chips),
        "dagster/uri": work.url(inventory_key(tile)),
        "dagster/column_schema": column_schema(
            INVENTORY,
            source_url="full URL of the chip",
            size="bytes",
            etag="of the object when it was listed",
        ),
    }
