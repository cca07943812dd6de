"""The assets: chip_inventory → chip_embeddings → embeddings_geoparquet → embeddings_collection.

One op takes each tile through the first three, so that finished tiles are published and recorded while the
run continues. Not here: the work (`pipeline`, `stac`), which is imported when a run starts, because it
imports PyTorch and loading the code location must not.
https://docs.dagster.io/guides/build/assets/defining-assets#multi-asset
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from clay_assets.dagster.checks import CHECKS, log_checks
from clay_assets.dagster.ledger import AssetRecord, TileLedger
from clay_assets.dagster.metadata import embeddings_metadata, file_metadata, inventory_metadata, summarize
from clay_assets.dagster.resources import ClayEncoder, ObjectStore
from clay_assets.settings import Settings, absolute
from clay_assets.state.states import TileStores

if TYPE_CHECKING:
    from clay_assets.pipeline import Step, TileJob, TileOutcome
    from clay_assets.quality.report import Part, Report

# Limits the runs that share the GPUs: `dagster instance concurrency set gpu 1`, one per host.
GPU_POOL = "gpu"

CHECKED_AT_A_TIME = 8  # tiles, if checks run on their own: vectors of up to 64 MB each

CHIPS = dg.AssetKey("chips")
INVENTORY = dg.AssetKey("chip_inventory")
EMBEDDINGS = dg.AssetKey("chip_embeddings")
GEOPARQUET = dg.AssetKey("embeddings_geoparquet")

# The step that materializes each asset of a tile, upstream first.
STEPS: "Mapping[dg.AssetKey, Step]" = {INVENTORY: "inventory", EMBEDDINGS: "embed", GEOPARQUET: "publish"}
KEYS = tuple(STEPS)


class TilesConfig(dg.Config):
    """Options of one run."""

    force: bool = Field(default=False, description="Embed every chip again, even if its results are current.")
    retry_skipped: bool = Field(default=False, description="Read chips again that earlier runs skipped.")
    version: int | None = Field(
        default=None, ge=0, description="Version of the published file; empty: CLAY_VERSION."
    )


class CollectionConfig(dg.Config):
    """Fields of the Collection that do not follow from the files."""

    version: int | None = Field(
        default=None, ge=0, description="Version of the published files; empty: CLAY_VERSION."
    )
    license: str = Field(
        default="proprietary",
        description="SPDX identifier of the embeddings' licence, `proprietary` or `various`.",
    )
    description: str = Field(default="", description="Description in Markdown; empty: rows, tiles and model.")
    checkpoint: str = Field(default="", description="URL of the weights, if they are public.")


def build_assets(tiles: Sequence[str], settings: Settings) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Build the assets of tiles; the tiles of the manifest are their partitions."""
    most = settings.tiles_per_run
    spec = partial(
        dg.AssetSpec,
        owners=_owners(settings),
        group_name="clay",
        partitions_def=dg.StaticPartitionsDefinition(tiles),
        skippable=True,  # the ledger records each tile itself
    )
    source = dg.AssetSpec(
        CHIPS, description="GeoTIFF chips, one folder per MGRS tile.", kinds={"s3"}, group_name="clay"
    )
    inventory = spec(
        INVENTORY,
        deps=[CHIPS],
        kinds={"s3"},
        code_version="1",
        description="The chips of a tile: URL, size and ETag of each, from a listing.",
    )
    embeddings = spec(
        EMBEDDINGS,
        deps=[INVENTORY],
        kinds={"pytorch"},
        # Tiles are stale after a change of these.
        code_version=f"{absolute(settings.checkpoint)} {settings.level or 'default'} {settings.precision}",
        description="One vector per chip, or the reason why it was skipped. Chips whose results are current"
        " are not read.",
    )
    geoparquet = spec(
        GEOPARQUET,
        deps=[EMBEDDINGS],
        kinds={"parquet"},
        code_version="1",
        description="One GeoParquet 1.0.0 file per tile: source URL, date, embedding and footprint of each"
        " chip.",
    )

    @dg.multi_asset(
        name="tiles",
        specs=[inventory, embeddings, geoparquet],
        check_specs=CHECKS,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(most) if most else dg.BackfillPolicy.single_run(),
        pool=GPU_POOL,
    )
    def make_tiles(
        context: dg.AssetExecutionContext,
        config: TilesConfig,
        chips: ObjectStore,
        work: ObjectStore,
        output: ObjectStore,
        stac: ObjectStore,
        encoder: ClayEncoder,
    ) -> Iterator[dg.MaterializeResult]:
        from clay_assets.pipeline import TileJob

        keys = context.selected_asset_keys
        checked = {check.asset_key for check in context.selected_asset_check_keys}
        job = TileJob(
            TileStores(chips.store(), work.store(), output.store(), stac.store()),
            encoder.settings(),
            version=settings.version if config.version is None else config.version,
            steps=tuple(step for key, step in STEPS.items() if key in (keys or checked)),
            force=config.force,
            retry_skipped=config.retry_skipped,
            check=bool(checked),
        )
        if keys:
            yield from _make(context, job)
        else:
            _check_only(context, job, tiles)

    return [source, make_tiles]


def build_embeddings_collection(settings: Settings) -> dg.AssetsDefinition:
    """Build the asset of all published tiles."""

    @dg.asset(
        deps=[GEOPARQUET],
        group_name="clay",
        kinds={"json", "parquet"},
        owners=_owners(settings),
        code_version="1",
        # Dagster's command line refuses a partition range if an asset of the selection has another policy.
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def embeddings_collection(
        config: CollectionConfig, output: ObjectStore, stac: ObjectStore
    ) -> dg.MaterializeResult:
        """A STAC Collection of all published tiles, its Items as a table, the model, the mean vector."""
        from clay_assets.stac.catalog import write_collection

        done = write_collection(
            output.store(),
            stac.store(),
            version=settings.version if config.version is None else config.version,
            license=config.license,
            description=config.description,
            checkpoint=config.checkpoint,
        )
        return dg.MaterializeResult(
            metadata={
                "tiles": done.items,
                "dagster/row_count": done.rows,
                "dagster/uri": done.url,
                "Items added": len(done.added),
            }
        )

    return embeddings_collection


def _owners(settings: Settings) -> list[str]:
    return [owner.strip() for owner in settings.owners.split(",") if owner.strip()]


def _make(context: dg.AssetExecutionContext, job: "TileJob") -> Iterator[dg.MaterializeResult]:
    from clay_assets.embedding.progress import Progress
    from clay_assets.pipeline import RunStopped, process_tiles

    ledger = TileLedger(context)
    reports: list[Mapping[Part, Report]] = []

    def record(outcome: "TileOutcome") -> None:
        ledger.record(outcome.tile, _records(outcome, job), outcome.error)
        if outcome.error is None:
            context.log.info(summarize(outcome))
            reports.append(outcome.reports)

    try:
        with Progress() as progress:
            context.log.info(process_tiles(ledger.tiles, job, record, progress))
    except RunStopped as stopped:
        raise ledger.failure(
            f"stopped at tile {stopped.outcome.tile}, because every other tile would fail the same way:"
            f" {stopped}"
        ) from stopped.outcome.error
    except BaseException:  # also an interrupt: record the finished tiles
        ledger.keep()
        raise
    finally:
        log_checks(context, reports)
    yield from ledger.results()


def _check_only(context: dg.AssetExecutionContext, job: "TileJob", manifest: Sequence[str]) -> None:
    """Run the checks on their own: reads everything again, of the run's tiles or of all tiles."""
    from clay_assets.pipeline import examine

    tiles = manifest
    if context.has_partition_key or context.has_partition_key_range:
        selected = context.partition_key_range  # `partition_keys` is empty in such a run
        tiles = manifest[manifest.index(selected.start) : manifest.index(selected.end) + 1]
    target = job.encoder.known_target(job.stores.work)
    with ThreadPoolExecutor(CHECKED_AT_A_TIME) as pool:
        log_checks(context, list(pool.map(lambda tile: examine(job, tile, target, again=True), tiles)))


def _records(outcome: "TileOutcome", job: "TileJob") -> list[AssetRecord]:
    """Return the materializations of a tile's assets for the steps that it completed, upstream first."""
    tile, work = outcome.tile, job.stores.work
    records = []
    if outcome.inventory is not None:
        metadata = inventory_metadata(tile, outcome.inventory, work)
        records.append(AssetRecord(INVENTORY, metadata, metadata["chips digest"]))
    if outcome.results is not None:
        metadata = embeddings_metadata(tile, outcome.results, work, reused=outcome.reused)
        digest = f"{outcome.results.provenance.fingerprint.folder} {outcome.results.digest}"
        records.append(AssetRecord(EMBEDDINGS, metadata, digest))
    if outcome.published is not None:
        records.append(AssetRecord(GEOPARQUET, file_metadata(outcome.published), outcome.published.inputs))
    if outcome.empty and outcome.error is None:
        metadata = {"chips": 0, "dagster/partition_row_count": 0}
        records += [AssetRecord(key, metadata, "empty") for key in KEYS[1:] if STEPS[key] in job.steps]
    return records
