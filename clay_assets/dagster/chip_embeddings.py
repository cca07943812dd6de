"""The asset `chip_embeddings`: what each chip of a tile is, as numbers, or why it is not.

Only what Dagster has to do with it; the work is in `clay_assets.embedding.tile`, which is imported when a run
begins: it needs PyTorch, and loading the code location must not.
https://docs.dagster.io/guides/build/assets/defining-assets
"""

import socket
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from clay_assets.dagster.encoder import ClayEncoder
from clay_assets.dagster.ledger import TileLedger
from clay_assets.dagster.metadata import column_schema, map_link, table
from clay_assets.dagster.object_store import ObjectStore

if TYPE_CHECKING:
    from clay_assets.results import ResultsHeader
    from clay_assets.storage import Store

GPU_POOL = "gpu"
"""Runs of this pool share the accelerators: `dagster instance concurrency set gpu 1`, one for each host.
The inventory, where such a run begins, is in it too: see there."""


class EmbedConfig(dg.Config):
    """What can be asked of one run."""

    force: bool = Field(default=False, description="Embed every chip again, also those that are current.")


def build_chip_embeddings(
    tiles: dg.PartitionsDefinition,
    backfill_policy: dg.BackfillPolicy,
    code_version: str,
    inventory: dg.AssetsDefinition,
) -> dg.AssetsDefinition:
    """Make the asset.

    Args:
        tiles: The partitions.
        backfill_policy: How many of them go into one run of a backfill.
        code_version: Changes with the checkpoint, the level or the precision: tiles then show as stale.
        inventory: The asset of inventories.
    """

    @dg.asset(
        deps=[inventory],
        partitions_def=tiles,
        backfill_policy=backfill_policy,
        pool=GPU_POOL,
        group_name="clay",
        kinds={"pytorch"},
        code_version=code_version,
    )
    def chip_embeddings(
        context: dg.AssetExecutionContext,
        config: EmbedConfig,
        chips: ObjectStore,
        work: ObjectStore,
        encoder: ClayEncoder,
    ) -> dg.MaterializeResult:
        """One vector for each chip, or the reason why there is none. Chips that are current are not read."""
        from clay_assets.embedding.plan import plan_tiles
        from clay_assets.embedding.tile import embed_tile, embedding_run

        store = work.store()
        with TileLedger(context) as ledger:
            fingerprint = encoder.fingerprint()
            plans = plan_tiles(store, ledger.tiles, fingerprint, force=config.force)
            with embedding_run(plans, chips.store(), encoder, fingerprint) as run:
                for tile, plan in plans.items():
                    with ledger.tile(tile) as metadata:
                        header = embed_tile(plan, run, store)
                        metadata |= describe(header, store, tile, reused=plan.is_current)
                        context.log.info(in_words(tile, header, reused=plan.is_current))
                context.log.info(run.in_words())
        return dg.MaterializeResult()

    return chip_embeddings


def describe(header: "ResultsHeader", work: "Store", tile: str, *, reused: bool) -> dict[str, Any]:
    """Metadata of one tile's materialization."""
    from clay_assets.results import results_key
    from clay_assets.results.schema import results_schema

    summary, making = header.summary, header.making
    return {
        "chips": summary.chips,
        "embedded": summary.embedded,
        "skipped": len(summary.skipped),
        "skipped chips": table(summary.skipped),
        "picture": dg.MetadataValue.md(summary.picture),
        "map": map_link(*summary.bounds),
        "chips encoded in this run": 0 if reused else summary.encoded,
        "chips per second": round(summary.chips_per_second, 3),
        "seconds": round(summary.seconds, 3),
        "bytes read": 0 if reused else summary.bytes_read,
        "device": making.device,
        "host": socket.gethostname(),
        "level": making.fingerprint.level,
        "precision": making.fingerprint.precision,
        "model": making.model,
        "untrained weights": making.untrained,
        "checkpoint SHA-256": making.fingerprint.checkpoint_sha256,
        "dagster/row_count": summary.chips,
        "dagster/partition_row_count": summary.chips,
        "dagster/uri": work.url(results_key(tile)),
        "dagster/column_schema": column_schema(
            results_schema(making.width),
            embeddings=f"{' x '.join(map(str, making.shape))} numbers, row by row; null where skipped",
            geometry="WKB polygon in OGC:CRS84",
            thumbnail="true colour, 16 x 16 RGB",
            reason="why the chip was skipped; null where it was embedded",
        ),
    }


def in_words(tile: str, header: "ResultsHeader", *, reused: bool) -> str:
    """One line for the event log."""
    summary = header.summary
    counts = f"{summary.embedded} embedded, {len(summary.skipped)} skipped"
    if reused:
        return f"tile {tile}: current, nothing to do ({counts})"
    return (
        f"tile {tile}: {counts}; {summary.encoded} encoded now in {summary.seconds:.1f} s"
        f" ({summary.chips_per_second:.2f} chips/s on {header.making.device})"
    )
