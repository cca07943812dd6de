"""New imagery becomes runs: a job, a daily schedule and a sensor, the latter two off until switched on.

Both look at every tile of the manifest and request runs for those with new or changed chips. Not here: what
the state of a tile is (`tile_state`), which runs it calls for (`tile_runs`), how a run goes about its tiles.
A tick must end within `DAGSTER_SCHEDULE_GRPC_TIMEOUT_SECONDS` or `DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS`.
https://docs.dagster.io/guides/automate
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import dagster as dg

from clay_assets.dagster.encoder import ClayEncoder
from clay_assets.dagster.object_store import ObjectStore
from clay_assets.dagster.run_requests import plan_runs, tiles_under_way
from clay_assets.state import TileStores, Wanted, in_words, look_at_tiles

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
class Lookout:
    """Finds out what new imagery there is and which runs it calls for.

    Attributes:
        assets: Keys of the three assets, the published file's last.
        tiles: The manifest.
        version: Of the published files.
        tiles_per_run: Tiles in a run at most; 0: no limit.
    """

    assets: Sequence[dg.AssetKey]
    tiles: Sequence[str]
    version: int
    tiles_per_run: int

    def requests(
        self, context: TickContext, stores: TileStores, encoder: ClayEncoder, occasion: str
    ) -> Requests:
        """The runs to request now, or what was looked at to find that none is called for.

        Raises:
            StorageError: If a store refuses; the tick fails and says so.
            SettingError: If a setting means nothing.
        """
        wanted = Wanted.by_settings(
            level=encoder.chosen_level(),
            precision=encoder.precision,
            version=self.version,
            checkpoint=encoder.checkpoint.store(),
            cache=Path(encoder.cache) if encoder.cache else None,
        )
        states = look_at_tiles(stores, self.tiles, wanted)
        under_way = tiles_under_way(context.instance, JOB, self.assets, self.tiles)
        runs = list(plan_runs(states, under_way, self.tiles_per_run))
        seen = in_words(states, stores.chips.uri)
        if under_way:
            seen += f"; runs under way have {len(under_way)} of them in hand"
        if not runs:
            return dg.SkipReason(seen)
        tiles = sum(len(run.tiles) for run in runs)
        context.log.info(f"{seen}; requesting {len(runs)} runs for {tiles} tiles")
        return [run.request(self.assets, occasion) for run in runs]


def build_automation(lookout: Lookout, assets: Sequence[dg.AssetsDefinition]) -> dg.Definitions:
    """Make the job, the schedule and the sensor.

    Args:
        lookout: Says what to request.
        assets: The three assets.
    """
    job = dg.define_asset_job(
        JOB, selection=list(assets), tags=dict(JOB_TAGS), description="List, embed and publish tiles."
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
        return lookout.requests(context, stores, encoder, f"{context.scheduled_execution_time:%Y-%m-%d}")

    @dg.sensor(
        job=job,
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Every {SENSOR_INTERVAL_S // 60} minutes: request runs for tiles with new or changed"
        " chips, once for each state of their chips.",
    )
    def new_imagery(
        context: dg.SensorEvaluationContext,
        chips: ObjectStore,
        work: ObjectStore,
        output: ObjectStore,
        encoder: ClayEncoder,
    ) -> Requests:
        stores = TileStores(chips.store(), work.store(), output.store())
        return lookout.requests(context, stores, encoder, occasion="")

    return dg.Definitions(jobs=[job], schedules=[new_imagery_daily], sensors=[new_imagery])
