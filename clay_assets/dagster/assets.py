"""The assets: chip_inventory → chip_embeddings → embeddings_geoparquet, by one op, tile by tile.

One op makes all three of a tile before the next tile is done, so that each is recorded and published while
the run goes on. Belongs here: what Dagster has to do with it. Does not belong here: the work (`pipeline`),
which is imported when a run begins: it needs PyTorch, and loading the code location must not.
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
from clay_assets.dagster.metadata import embeddings_metadata, file_metadata, in_words, inventory_metadata
from clay_assets.dagster.resources import ClayEncoder, ObjectStore
from clay_assets.state.states import TileStores

if TYPE_CHECKING:
    from clay_assets.pipeline import Step, TileJob, TileOutcome
    from clay_assets.quality.report import Part, Report

GPU_POOL = "gpu"
"""Runs of this pool share the accelerators: `dagster instance concurrency set gpu 1`, one for each host."""

CHIPS = dg.AssetKey("chips")
INVENTORY = dg.AssetKey("chip_inventory")
EMBEDDINGS = dg.AssetKey("chip_embeddings")
GEOPARQUET = dg.AssetKey("embeddings_geoparquet")
KEYS = (INVENTORY, EMBEDDINGS, GEOPARQUET)
"""The assets, upstream first."""

CHECKED_AT_A_TIME = 8
"""Tiles whose objects are read again at a time where checks run on their own: vectors of up to 64 MB each."""


class TilesConfig(dg.Config):
    """What can be asked of one run."""

    force: bool = Field(default=False, description="Embed every chip again, also those that are current.")
    retry_skipped: bool = Field(
        default=False, description="Read chips again that earlier runs skipped, such as unreadable ones."
    )
    version: int | None = Field(
        default=None, ge=0, description="The published file's version; empty: as CLAY_VERSION says."
    )


def build_assets(
    tiles: Sequence[str], *, tiles_per_run: int, code_version: str, version: int, owners: Sequence[str] = ()
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Make the assets.

    Args:
        tiles: The manifest: the partitions.
        tiles_per_run: Tiles in one run of a backfill; 0: one run for all.
        code_version: Changes with the checkpoint, the level or the precision: tiles then show as stale.
        version: Default of the published version.
        owners: Of the assets, as Dagster has them.
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
                "One vector for each chip, or the reason why there is none. Current chips are not read.",
            ),
            spec(
                GEOPARQUET,
                EMBEDDINGS,
                "parquet",
                "1",
                "One GeoParquet 1.0.0 file a tile: source URL, date, embedding and footprint of each chip.",
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
            context.log.info(in_words(outcome))
            reports.append(outcome.reports)

    try:
        with Progress() as progress:
            context.log.info(process_tiles(ledger.tiles, job, record, progress))
    except RunStopped as stopped:
        raise ledger.failure(
            f"stopped at tile {stopped.outcome.tile}, because every other tile would fail the same way:"
            f" {stopped}"
        ) from stopped.outcome.error
    except BaseException:  # an interrupt too: what is finished stays finished
        ledger.keep()
        raise
    finally:
        _log_checks(context, reports)
    yield from ledger.results()


def _check_only(context: dg.AssetExecutionContext, job: "TileJob", manifest: Sequence[str]) -> None:
    """The checks launched on their own: everything is read again, of the run's tiles or of all."""
    from clay_assets.pipeline import examine

    checked = {check.asset_key for check in context.selected_asset_check_keys}
    job = replace(job, steps=_steps(checked))
    tiles = manifest
    if context.has_partition_key or context.has_partition_key_range:  # the run itself has no partitions
        asked = context.partition_key_range
        tiles = manifest[manifest.index(asked.start) : manifest.index(asked.end) + 1]
    target = job.encoder.known_target(job.stores.work)
    with ThreadPoolExecutor(CHECKED_AT_A_TIME) as pool:
        _log_checks(context, list(pool.map(lambda tile: examine(job, tile, target, again=True), tiles)))


def _log_checks(context: dg.AssetExecutionContext, reports: "Sequence[Mapping[Part, Report]]") -> None:
    step = context.get_step_execution_context()
    for result in check_results(context.selected_asset_check_keys, reports):
        context.log_event(result.to_asset_check_evaluation(step))


def _steps(keys: Collection[dg.AssetKey]) -> "tuple[Step, ...]":
    """The steps that make these assets."""
    from clay_assets.pipeline import STEPS

    return tuple(step for key, step in zip(KEYS, STEPS, strict=True) if key in keys)


def asset_records(outcome: "TileOutcome", job: "TileJob") -> list[AssetRecord]:
    """What there is to record of each asset of a tile, upstream first: of the steps that were completed."""
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
        made = dict(zip(KEYS, ("inventory", "embed", "publish"), strict=True))
        records += [
            AssetRecord(key, {"chips": 0, "dagster/partition_row_count": 0}, "empty")
            for key in KEYS[1:]
            if made[key] in job.steps
        ]
    return records
