"""Requests runs for new imagery: a job, a daily schedule and a sensor; the latter two are off by default.

Both survey the tiles of the manifest, at most `TILES_PER_TICK` a tick, because a tick must end within
Dagster's 60 s: the schedule surveys a larger manifest in several ticks on the same morning, the sensor in
successive ticks. Not here: the state of a tile (`state`), the run requests made from it (`run_requests`), the
run itself (`assets`).
https://docs.dagster.io/guides/automate
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

import dagster as dg

from clay_assets.dagster.resources import ClayEncoder, ObjectStore
from clay_assets.dagster.run_requests import plan_runs, tiles_in_runs
from clay_assets.state import SurveyCache, TileStores, summarize, survey
from clay_assets.tiles.manifest import ManifestError, read_tiles

JOB = "embed_and_publish"

TILES_PER_TICK = 2_000
"""Tiles surveyed in one tick at most."""

DAILY_HOUR = 5
"""UTC hour of the schedule's first tick of a day."""

TICK_MINUTES = 2
"""Minutes between a day's ticks if the manifest has more than `TILES_PER_TICK` tiles."""

SENSOR_INTERVAL_S = 600
"""Minimum time between two ticks of the sensor: each costs one LIST per tile."""

JOB_TAGS = MappingProxyType(
    {
        # Dagster restarts a run whose process died (killed, evicted, out of memory); finished tiles are kept.
        "dagster/max_retries": "2",
        # Not a run in which a tile failed: its transfers were retried already, and the schedule requests the
        # tile again the next day.
        "dagster/retry_on_asset_or_op_failure": "false",
    }
)

TickContext = dg.SensorEvaluationContext | dg.ScheduleEvaluationContext
Requests = list[dg.RunRequest] | dg.SkipReason


@dataclass(frozen=True)
class ImageryMonitor:
    """Surveys tiles and requests runs for those with new imagery.

    Attributes:
        assets: Keys of the three assets.
        tiles: The tiles of the manifest when the code location was loaded, sorted.
        manifest: The file.
        version: Version of the published files.
        tiles_per_run: Maximum number of tiles of a run; 0: no limit.
        tiles_per_tick: Maximum number of tiles of a tick.
        cache: States that earlier ticks of this process determined: an unchanged tile costs one LIST.
    """

    assets: Sequence[dg.AssetKey]
    tiles: Sequence[str]
    manifest: Path
    version: int
    tiles_per_run: int
    tiles_per_tick: int = TILES_PER_TICK
    cache: SurveyCache = field(default_factory=dict)

    @property
    def ticks(self) -> int:
        """Ticks that it takes to survey every tile."""
        return -(-len(self.tiles) // self.tiles_per_tick)

    def tiles_at(self, moment: datetime) -> Sequence[str]:
        """Return the tiles of the schedule's tick at a time: the first tick has the first tiles, etc."""
        moment = moment.astimezone(UTC)
        tick = ((moment.hour - DAILY_HOUR) * 60 + moment.minute) // TICK_MINUTES % self.ticks
        return self.tiles[tick * self.tiles_per_tick : (tick + 1) * self.tiles_per_tick]

    def tiles_after(self, last: str) -> Sequence[str]:
        """Return the tiles of the sensor's tick after the one that ended with `last`; "": the first tick."""
        start = bisect_right(self.tiles, last)
        start = start if start < len(self.tiles) else 0
        return self.tiles[start : start + self.tiles_per_tick]

    def requests(
        self,
        context: TickContext,
        tiles: Sequence[str],
        stores: TileStores,
        encoder: ClayEncoder,
        moment: datetime,
    ) -> Requests:
        """Survey some tiles and request runs for those with work to do, or return why there are none.

        Args:
            context: Context of the tick.
            tiles: Tiles to survey.
            stores: Chips, work and published files.
            encoder: Settings of the encoder.
            moment: Dagster launches an equal request only once a day of this moment. Without the day, a tile
                whose run failed would never be requested again.

        Raises:
            StorageError: If a store refuses; the tick fails with its message.
            SettingsError: If a setting is invalid.
        """
        target = encoder.settings().known_target(stores.work)
        states = survey(stores, tiles, target, self.version, self.cache)
        in_runs = tiles_in_runs(context.instance, JOB, self.assets, self.tiles)
        runs = list(plan_runs(states, in_runs, self.tiles_per_run))
        seen = summarize(states, stores.chips.uri)
        if self.ticks > 1:
            seen += f"; {tiles[0]} to {tiles[-1]} of {len(self.tiles):,} tiles, the others in other ticks"
        seen += outdated_manifest(self.manifest, self.tiles)
        if in_runs:
            seen += f"; {len(in_runs)} tiles are in queued or running runs"
        if not runs:
            return dg.SkipReason(seen)
        count = sum(len(run.tiles) for run in runs)
        context.log.info(f"{seen}; requesting {len(runs)} runs for {count} tiles")
        return [run.request(f"{moment:%Y-%m-%d}") for run in runs]


def daily_crons(ticks: int) -> list[str]:
    """Return cron expressions for this many ticks a day from `DAILY_HOUR` on, one per hour."""
    crons = []
    for hour, group in groupby(range(0, ticks * TICK_MINUTES, TICK_MINUTES), lambda minute: minute // 60):
        minutes = ",".join(str(minute % 60) for minute in group)
        crons.append(f"{minutes} {DAILY_HOUR + hour} * * *")
    return crons


def outdated_manifest(manifest: Path, tiles: Sequence[str]) -> str:
    """Describe how the manifest differs from the tiles of the loaded code location; "" if it does not.

    A run that was requested as a range also covers tiles inserted into the manifest since.
    """
    try:
        now = set(read_tiles(manifest))
    except ManifestError as error:
        return f"; the manifest can no longer be read: {error}"
    added, removed = len(now - set(tiles)), len(set(tiles) - now)
    if not added and not removed:
        return ""
    return (
        f"; {manifest} has {added} new tiles and lacks {removed} since this code location was loaded: reload"
        " it (Deployment → Reload); a range of an earlier run then covers the tiles inserted in between, too"
    )


def build_automation(monitor: ImageryMonitor) -> dg.Definitions:
    """Build the job, the schedule and the sensor of a monitor."""
    job = dg.define_asset_job(
        JOB, selection=list(monitor.assets), tags=dict(JOB_TAGS), description="List, embed and publish tiles."
    )
    split = f", in {monitor.ticks} ticks {TICK_MINUTES} minutes apart" if monitor.ticks > 1 else ""

    @dg.schedule(
        job=job,
        cron_schedule=daily_crons(monitor.ticks),
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Every day at {DAILY_HOUR:02}:00 UTC{split}: request runs for tiles with new or changed"
        " chips. A tile that failed is requested again the next day.",
    )
    def new_imagery_daily(
        context: dg.ScheduleEvaluationContext,
        chips: ObjectStore,
        work: ObjectStore,
        output: ObjectStore,
        encoder: ClayEncoder,
    ) -> Requests:
        stores = TileStores(chips.store(), work.store(), output.store())
        moment = context.scheduled_execution_time
        return monitor.requests(context, monitor.tiles_at(moment), stores, encoder, moment)

    @dg.sensor(
        job=job,
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Every {SENSOR_INTERVAL_S // 60} minutes: request runs for tiles with new or changed"
        f" chips, once a day for each state of their chips; surveys up to {monitor.tiles_per_tick:,} tiles.",
    )
    def new_imagery(
        context: dg.SensorEvaluationContext,
        chips: ObjectStore,
        work: ObjectStore,
        output: ObjectStore,
        encoder: ClayEncoder,
    ) -> Requests:
        stores = TileStores(chips.store(), work.store(), output.store())
        tiles = monitor.tiles_after(context.cursor or "")
        requests = monitor.requests(context, tiles, stores, encoder, datetime.now(UTC))
        context.update_cursor(tiles[-1])  # only now: a tick that failed surveys the same tiles again
        return requests

    return dg.Definitions(jobs=[job], schedules=[new_imagery_daily], sensors=[new_imagery])
