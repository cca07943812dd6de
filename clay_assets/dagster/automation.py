"""New imagery becomes runs: a job, a daily schedule and a sensor, the latter two off until switched on.

Both survey every tile of the manifest and request runs for those with new or changed chips. Not here: the
state of a tile (`state`), the run requests made from it (`run_requests`), the run itself (`assets`). A tick
must end within `DAGSTER_SCHEDULE_GRPC_TIMEOUT_SECONDS` or `DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS`.
https://docs.dagster.io/guides/automate
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import dagster as dg

from clay_assets.dagster.resources import ClayEncoder, ObjectStore
from clay_assets.dagster.run_requests import plan_runs, tiles_under_way
from clay_assets.state import TileStores, in_words, survey
from clay_assets.tiles.manifest import ManifestError, read_tiles

JOB = "embed_and_publish"

DAILY = "0 5 * * *"
DAILY_IN_WORDS = "Every day at 05:00 UTC"

SENSOR_INTERVAL_S = 600
"""Between two looks of the sensor, at least: each costs a LIST a tile."""

JOB_TAGS = MappingProxyType(
    {
        # A run whose process died (killed, evicted, out of memory) starts again: what is finished is kept.
        "dagster/max_retries": "2",
        # A run in which a tile failed is not: its transfers were tried again already, and the schedule's tick
        # of the next day requests the tile anew.
        "dagster/retry_on_asset_or_op_failure": "false",
    }
)

TickContext = dg.SensorEvaluationContext | dg.ScheduleEvaluationContext
Requests = list[dg.RunRequest] | dg.SkipReason


@dataclass(frozen=True)
class ImageryMonitor:
    """Finds new imagery and requests runs for it.

    Attributes:
        assets: Keys of the three assets.
        tiles: The tiles of the manifest when the code location was loaded.
        manifest: The file.
        version: Of the published files.
        tiles_per_run: Tiles in a run at most; 0: no limit.
    """

    assets: Sequence[dg.AssetKey]
    tiles: Sequence[str]
    manifest: Path
    version: int
    tiles_per_run: int

    def requests(
        self, context: TickContext, stores: TileStores, encoder: ClayEncoder, run_key_prefix: str
    ) -> Requests:
        """The runs to request now, or what was surveyed where there is nothing to do.

        Raises:
            StorageError: If a store refuses; the tick fails and says so.
            SettingsError: If a setting is invalid.
        """
        target = encoder.settings().known_target(stores.work)
        states = survey(stores, self.tiles, target, self.version)
        under_way = tiles_under_way(context.instance, JOB, self.assets, self.tiles)
        runs = list(plan_runs(states, under_way, self.tiles_per_run))
        seen = in_words(states, stores.chips.uri) + outdated_manifest(self.manifest, self.tiles)
        if under_way:
            seen += f"; {len(under_way)} of them are in queued or running runs"
        if not runs:
            return dg.SkipReason(seen)
        tiles = sum(len(run.tiles) for run in runs)
        context.log.info(f"{seen}; requesting {len(runs)} runs for {tiles} tiles")
        return [run.request(run_key_prefix) for run in runs]


def outdated_manifest(manifest: Path, tiles: Sequence[str]) -> str:
    """What to say where the manifest has changed since the code location was loaded; "" where it has not.

    Partitions are those of the loaded manifest. A range of an earlier run covers what was inserted since.
    """
    try:
        now = set(read_tiles(manifest))
    except ManifestError as error:
        return f"; the manifest cannot be read any more: {error}"
    more, fewer = len(now - set(tiles)), len(set(tiles) - now)
    if not more and not fewer:
        return ""
    return (
        f"; {manifest} has {more} new tiles and lacks {fewer} since this code location was loaded: reload it"
        " (Deployment → Reload), and note that a range of an earlier run covers the tiles inserted in between"
    )


def build_automation(monitor: ImageryMonitor) -> dg.Definitions:
    """Make the job, the schedule and the sensor.

    Args:
        monitor: Says what to request.
    """
    job = dg.define_asset_job(
        JOB, selection=list(monitor.assets), tags=dict(JOB_TAGS), description="List, embed and publish tiles."
    )

    @dg.schedule(
        job=job,
        cron_schedule=DAILY,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"{DAILY_IN_WORDS}: request runs for tiles with new or changed chips. A tile that failed"
        " is requested again the next day.",
    )
    def new_imagery_daily(
        context: dg.ScheduleEvaluationContext,
        chips: ObjectStore,
        work: ObjectStore,
        output: ObjectStore,
        encoder: ClayEncoder,
    ) -> Requests:
        stores = TileStores(chips.store(), work.store(), output.store())
        return monitor.requests(context, stores, encoder, f"{context.scheduled_execution_time:%Y-%m-%d}")

    @dg.sensor(
        job=job,
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Every {SENSOR_INTERVAL_S // 60} minutes: request runs for tiles with new or changed"
        " chips, once a day for each state of their chips.",
    )
    def new_imagery(
        context: dg.SensorEvaluationContext,
        chips: ObjectStore,
        work: ObjectStore,
        output: ObjectStore,
        encoder: ClayEncoder,
    ) -> Requests:
        stores = TileStores(chips.store(), work.store(), output.store())
        # Dagster never launches a run key again: without the day, a tile would be lost whose run failed.
        return monitor.requests(context, stores, encoder, f"{datetime.now(UTC):%Y-%m-%d}")

    return dg.Definitions(jobs=[job], schedules=[new_imagery_daily], sensors=[new_imagery])
