"""The assets: chip_inventory → chip_embeddings → embeddings_geoparquet, materialized by one op, tile by tile.

The op takes each tile through all three assets, so that finished tiles are published and recorded while the
run continues. Not here: the work (`pipeline`), which is imported when a run starts, because it imports
PyTorch and loading the code location must not.
https://docs.dagster.io/guides/build/assets/defining-assets#multi-asset
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from clay_assets.dagster.checks import CHECKS, check_results
from clay_assets.dagster.ledger import AssetRecord, TileLedger
from clay_assets.dagster.metadata import embeddings_metadata, file_metadata, inventory_metadata, summarize
from clay_assets.dagster.resources import ClayEncoder, ObjectStore
from clay_assets.state.states import TileStores

if TYPE_CHECKING:
    from clay_assets.pipeline import Step, TileJob, TileOutcome
    from clay_assets.quality.report import Part, Report

GPU_POOL = "gpu"
"""Pool that limits the runs that share the GPUs: `dagster instance concurrency set gpu 1`, one per host."""

CHIPS = dg.AssetKey("chips")
INVENTORY = dg.AssetKey("chip_inventory")
EMBEDDINGS = dg.AssetKey("chip_embeddings")
GEOPARQUET = dg.AssetKey("embeddings_geoparquet")
KEYS = (INVENTORY, EMBEDDINGS, GEOPARQUET)
"""The assets, upstream first."""

CHECKED_AT_A_TIME = 8
"""Tiles read at a time if checks run on their own: vectors of up to 64 MB each."""


class TilesConfig(dg.Config):
    """Options of one run."""

    force: bool = Field(default=False, description="Embed every chip again, even if its results are current.")
    retry_skipped: bool = Field(default=False, description="Read chips again that earlier runs skipped.")
    version: int | None = Field(
        default=None, ge=0, description="Version of the published file; empty: CLAY_VERSION."
    )


def build_assets(
    tiles: Sequence[str], *, tiles_per_run: int, code_version: str, version: int, owners: Sequence[str] = ()
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Build the assets.

    Args:
        tiles: The manifest: the partitions.
        tiles_per_run: Tiles in one run of a backfill; 0: one run for all.
        code_version: Changes with the checkpoint, the level or the precision; tiles are then stale.
        version: Default of the published version.
        owners: Owners of the assets: e-mail addresses or `team:name`.
    """
    policy = dg.BackfillPolicy.multi_run(tiles_per_run) if tiles_per_run else dg.BackfillPolicy.single_run()
    partitions = dg.StaticPartitionsDefinition(tiles)

    def spec(key: dg.AssetKey, dep: dg.AssetKey, kind: str, version: str, text: str) -> dg.AssetSpec:
        return dg.AssetSpec(
            key,
            deps=[dep],
            description=text,
            kinds={kind},
            code_version=version,
            owners=owners,
            group_name="clay",
            partitions_def=partitions,
            skippable=True,  # the ledger records each tile itself
        )

    @dg.multi_asset(
        name="tiles",
        specs=[
            spec(
                INVENTORY,
                CHIPS,
                "s3",
                "1",
                "The chips of a tile: URL, size and ETag of each, from a listing.",
            ),
            spec(
                EMBEDDINGS,
                INVENTORY,
                "pytorch",
                code_version,
                "One vector per chip, or the reason why it was skipped. Chips whose results are current are"
                " not read.",
            ),
            spec(
                GEOPARQUET,
                EMBEDDINGS,
                "parquet",
                "1",
                "One GeoParquet 1.0.0 file per tile: source URL, date, embedding and footprint of each chip.",
            ),
        ],
        check_specs=[check.spec for check in CHECKS],
        can_subset=True,
        backfill_policy=policy,
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

        job = TileJob(
            TileStores(chips.store(), work.store(), output.store(), stac.store()),
            encoder.settings(),
            version=version if config.version is None else config.version,
            steps=_steps(context.selected_asset_keys),
            force=config.force,
            retry_skipped=config.retry_skipped,
            check=bool(context.selected_asset_check_keys),
        )
        if not job.steps:
            _check_only(context, job, tiles)
        else:
            yield from _make(context, job)

    source = dg.AssetSpec(
        CHIPS, description="GeoTIFF chips, one folder per MGRS tile.", kinds={"s3"}, group_name="clay"
    )
    return [source, make_tiles]


def _make(context: dg.AssetExecutionContext, job: "TileJob") -> Iterator[dg.MaterializeResult]:
    from clay_assets.embedding.progress import Progress
    from clay_assets.pipeline import RunStopped, process_tiles

    ledger = TileLedger(context)
    reports: list[Mapping[Part, Report]] = []

    def record(outcome: "TileOutcome") -> None:
        ledger.record(outcome.tile, asset_records(outcome, job), outcome.error)
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
        _log_checks(context, reports)
    yield from ledger.results()


def _check_only(context: dg.AssetExecutionContext, job: "TileJob", manifest: Sequence[str]) -> None:
    """Run the checks on their own: reads everything again, of the run's tiles or of all tiles."""
    from clay_assets.pipeline import examine

    checked = {check.asset_key for check in context.selected_asset_check_keys}
    job = replace(job, steps=_steps(checked))
    tiles = manifest
    if (
        context.has_partition_key or context.has_partition_key_range
    ):  # `partition_keys` is empty in such a run
        selected = context.partition_key_range
        tiles = manifest[manifest.index(selected.start) : manifest.index(selected.end) + 1]
    target = job.encoder.known_target(job.stores.work)
    with ThreadPoolExecutor(CHECKED_AT_A_TIME) as pool:
        _log_checks(context, list(pool.map(lambda tile: examine(job, tile, target, again=True), tiles)))


def _log_checks(context: dg.AssetExecutionContext, reports: "Sequence[Mapping[Part, Report]]") -> None:
    step = context.get_step_execution_context()
    for result in check_results(context.selected_asset_check_keys, reports):
        context.log_event(result.to_asset_check_evaluation(step))


def _steps(keys: Collection[dg.AssetKey]) -> "tuple[Step, ...]":
    """Return the steps that materialize these assets."""
    from clay_assets.pipeline import STEPS

    return tuple(step for key, step in zip(KEYS, STEPS, strict=True) if key in keys)


def asset_records(outcome: "TileOutcome", job: "TileJob") -> list[AssetRecord]:
    """Return the materializations of a tile's assets for the steps that it completed, upstream first."""
    from clay_assets.results.fingerprint import chips_digest

    records = []
    if outcome.inventory is not None:
        metadata = inventory_metadata(outcome.tile, outcome.inventory, job.stores.work)
        records.append(AssetRecord(INVENTORY, metadata, chips_digest(outcome.tile, outcome.inventory.chips)))
    if outcome.results is not None:
        metadata = embeddings_metadata(outcome.tile, outcome.results, job.stores.work, reused=outcome.reused)
        digest = f"{outcome.results.provenance.fingerprint.folder} {outcome.results.digest}"
        records.append(AssetRecord(EMBEDDINGS, metadata, digest))
    if outcome.published is not None:
        records.append(AssetRecord(GEOPARQUET, file_metadata(outcome.published), outcome.published.inputs))
    if outcome.empty and outcome.error is None:
        metadata = {"chips": 0, "dagster/partition_row_count": 0}
        records += [AssetRecord(key, metadata, "empty") for key in KEYS[1:] if _steps([key])[0] in job.steps]
    return records
