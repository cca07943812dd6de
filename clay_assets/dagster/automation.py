"""Requests runs for new imagery: a job, a daily schedule and a sensor; the latter two are off by default.

Both survey the tiles of the manifest, at most `TILES_PER_TICK` a tick, because a tick must end within
Dagster's 60 s: the schedule surveys a larger manifest in several ticks on the same morning, the sensor in
successive ticks. Adjacent tiles share a run; queued and running tiles are left out. Not here: the state of a
tile (`state`), the run itself (`assets`).
https://docs.dagster.io/guides/automate
"""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby

import dagster as dg

from clay_assets.dagster.assets import KEYS
from clay_assets.settings import Settings
from clay_assets.state import State, SurveyCache, TileState, TileStores, summarize, survey
from clay_assets.tiles.manifest import ManifestError, read_tiles

JOB = "embed_and_publish"

MAX_TILES_NAMED = 100  # in a run's tag `clay/tiles`

TILES_PER_TICK = 2_000  # surveyed in one tick at most
DAILY_HOUR = 5  # UTC hour of the schedule's first tick of a day
TICK_MINUTES = 2  # between a day's ticks if the manifest has more than `TILES_PER_TICK` tiles
SENSOR_INTERVAL_S = 600  # minimum time between two ticks of the sensor: each costs one LIST per tile

# Dagster's tags for the partitions of a run.
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PARTITION = "dagster/partition"

UNFINISHED = [
    dg.DagsterRunStatus[name] for name in ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
]

# States of tiles that a run is requested for. Stale tiles are not requested: after a change of the checkpoint
# or the level they may be the whole archive, which needs a backfill of all tiles.
TO_REQUEST: tuple[State, ...] = ("new", "changed", "unpublished")

RESOURCES = {"chips", "work", "output", "encoder"}

TickContext = dg.SensorEvaluationContext | dg.ScheduleEvaluationContext
Requests = list[dg.RunRequest] | dg.SkipReason


@dataclass(frozen=True)
class ImageryMonitor:
    """Surveys tiles and requests runs for those with new imagery."""

    tiles: Sequence[str]  # of the manifest when the code location was loaded, sorted
    settings: Settings
    # States that earlier ticks of this process determined: an unchanged tile costs one LIST.
    cache: SurveyCache = field(default_factory=dict)

    def requests(self, context: TickContext, tiles: Sequence[str], moment: datetime) -> Requests:
        """Survey some tiles and request runs for those with work to do, or return why there are none.

        Dagster launches an equal request only once for each day of `moment`. Without the day, a tile whose
        run failed would never be requested again. If a store refuses, the tick fails with its message.
        """
        resources, settings = context.resources, self.settings
        stores = TileStores(resources.chips.store(), resources.work.store(), resources.output.store())
        target = resources.encoder.settings().known_target(stores.work)
        states = survey(stores, tiles, target, settings.version, self.cache)
        in_runs = tiles_in_runs(context.instance, self.tiles)
        runs = list(plan_runs(states, in_runs, settings.tiles_per_run))
        seen = summarize(states, stores.chips.uri)
        if len(tiles) < len(self.tiles):
            seen += f"; {tiles[0]} to {tiles[-1]} of {len(self.tiles):,} tiles, the others in other ticks"
        seen += self._outdated_manifest()
        if in_runs:
            seen += f"; {len(in_runs)} tiles are in queued or running runs"
        if not runs:
            return dg.SkipReason(seen)
        context.log.info(f"{seen}; requesting {len(runs)} runs for {sum(map(len, runs))} tiles")
        return [run_request(run, f"{moment:%Y-%m-%d}") for run in runs]

    def _outdated_manifest(self) -> str:
        """Describe how the manifest differs from the loaded code location; "" if it does not."""
        manifest, known = self.settings.tiles, set(self.tiles)
        try:
            now = set(read_tiles(manifest))
        except ManifestError as error:
            return f"; the manifest can no longer be read: {error}"
        if now == known:
            return ""
        return (
            f"; {manifest} has {len(now - known)} new tiles and lacks {len(known - now)} since this code"
            " location was loaded: reload it (Deployment → Reload); a range of an earlier run then covers the"
            " tiles inserted in between, too"
        )


def plan_runs(
    states: Sequence[TileState], in_runs: Collection[str], tiles_per_run: int
) -> Iterator[Sequence[TileState]]:
    """Group the tiles with work to do, unless they are `in_runs`, into runs of adjacent tiles.

    No run has any other tile. A run of one tile costs a process and a loaded model, some ten seconds. Runs
    that include the tiles between would save this if every other tile has new chips, but would record
    needless materializations of those tiles. Runs have at most `tiles_per_run` tiles; 0: no limit.
    """
    for due, group in groupby(states, lambda tile: tile.state in TO_REQUEST and tile.tile not in in_runs):
        tiles = list(group)
        size = tiles_per_run or len(tiles)
        if due:
            yield from (tiles[start : start + size] for start in range(0, len(tiles), size))


def run_request(tiles: Sequence[TileState], day: str) -> dg.RunRequest:
    """Request a run of adjacent tiles, which Dagster launches only once a day for each state of the tiles."""
    names = [tile.tile for tile in tiles]
    more = f" and {len(names) - MAX_TILES_NAMED} more" if len(names) > MAX_TILES_NAMED else ""
    counts = Counter(tile.state for tile in tiles)
    tags = {
        "clay/tiles": ", ".join(names[:MAX_TILES_NAMED]) + more,
        "clay/why": ", ".join(f"{count} {state}" for state, count in counts.items()),
    }
    # The chips and the existing results that the run starts from.
    lines = [f"{tile.tile} {tile.chips_digest} {tile.inputs}\n" for tile in tiles]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()[:12]
    first, last = names[0], names[-1]
    if first == last:
        return dg.RunRequest(run_key=f"{day} {first} {digest}", partition_key=first, tags=tags)
    tags |= {RANGE_START: first, RANGE_END: last}
    return dg.RunRequest(run_key=f"{day} {first}...{last} {digest}", tags=tags)


def tiles_in_runs(instance: dg.DagsterInstance, tiles: Sequence[str]) -> set[str]:
    """Find the tiles of the manifest that are in queued and running runs of our assets.

    A run whose process died counts until it is marked as failed: `run_monitoring` in `deploy/` does that.
    """
    indices = {tile: index for index, tile in enumerate(tiles)}
    found: set[str] = set()
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=UNFINISHED)):
        if run.job_name != JOB and not set(KEYS) & set(run.asset_selection or ()):
            continue  # runs of our job may not name their assets
        first, last = (run.tags.get(tag, run.tags.get(PARTITION, "")) for tag in (RANGE_START, RANGE_END))
        if first in indices and last in indices:
            found.update(tiles[indices[first] : indices[last] + 1])
    return found


def daily_crons(ticks: int) -> list[str]:
    """Return cron expressions for this many ticks a day from `DAILY_HOUR` on, one per hour."""
    crons = []
    for hour, group in groupby(range(0, ticks * TICK_MINUTES, TICK_MINUTES), lambda minute: minute // 60):
        minutes = ",".join(str(minute % 60) for minute in group)
        crons.append(f"{minutes} {DAILY_HOUR + hour} * * *")
    return crons


def build_automation(tiles: Sequence[str], settings: Settings) -> dg.Definitions:
    """Build the job, the schedule and the sensor over the tiles of the manifest, sorted."""
    monitor = ImageryMonitor(tiles, settings)
    parts = [tiles[start : start + TILES_PER_TICK] for start in range(0, len(tiles), TILES_PER_TICK)]
    failed: set[str] = set()  # first tiles of the parts whose last tick of the sensor failed
    split = f", in {len(parts)} ticks {TICK_MINUTES} minutes apart" if len(parts) > 1 else ""
    job = dg.define_asset_job(
        JOB,
        selection=list(KEYS),
        tags={
            # Restart a run whose process died (killed, evicted, out of memory); finished tiles are kept.
            "dagster/max_retries": "2",
            # Not a run in which a tile failed: its transfers were retried already, and the schedule requests
            # the tile again the next day.
            "dagster/retry_on_asset_or_op_failure": "false",
        },
        description="List, embed and publish tiles.",
    )

    @dg.schedule(
        job=job,
        cron_schedule=daily_crons(len(parts)),
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        required_resource_keys=RESOURCES,
        description=f"Every day at {DAILY_HOUR:02}:00 UTC{split}: request runs for tiles with new or changed"
        " chips. A tile that failed is requested again the next day.",
    )
    def new_imagery_daily(context: dg.ScheduleEvaluationContext) -> Requests:
        moment = context.scheduled_execution_time.astimezone(UTC)
        tick = ((moment.hour - DAILY_HOUR) * 60 + moment.minute) // TICK_MINUTES
        return monitor.requests(context, parts[tick % len(parts)], moment)

    @dg.sensor(
        job=job,
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        required_resource_keys=RESOURCES,
        description=f"Every {SENSOR_INTERVAL_S // 60} minutes: request runs for tiles with new or changed"
        f" chips, once a day for each state of their chips; surveys up to {TILES_PER_TICK:,} tiles.",
    )
    def new_imagery(context: dg.SensorEvaluationContext) -> Requests:
        start = bisect_right(tiles, context.cursor or "") % len(tiles)
        while tiles[start] in failed:  # left for the next round, so that it does not block the others
            failed.discard(tiles[start])
            start = start + TILES_PER_TICK if start + TILES_PER_TICK < len(tiles) else 0
        part = tiles[start : start + TILES_PER_TICK]
        failed.add(part[0])
        requests = monitor.requests(context, part, datetime.now(UTC))
        failed.discard(part[0])  # a later tick has removed it if this one outlasted its time
        context.update_cursor(part[-1])
        return requests

    return dg.Definitions(jobs=[job], schedules=[new_imagery_daily], sensors=[new_imagery])
