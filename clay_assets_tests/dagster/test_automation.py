import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import dagster as dg
import pytest
from dagster._core.storage.tags import RUN_KEY_TAG, SENSOR_NAME_TAG

from clay_assets.dagster import ClayEncoder, ObjectStore, build_defs
from clay_assets.dagster.automation import DAILY, DAILY_IN_WORDS
from clay_assets.dagster.checks import CHECKS
from clay_assets.dagster.run_requests import RANGE_END, RANGE_START, plan_runs
from clay_assets.embedding.checkpoint_cache import CheckpointMissing
from clay_assets.settings import Settings
from clay_assets.state import State, TileState, TileStores
from clay_assets.storage import BucketMissing, Store
from clay_assets_tests.dagster.project import ASSETS, AlreadyEmbedded, given_encoder
from clay_assets_tests.s3_server import S3Bucket
from clay_assets_tests.tile_scene import TILES, MadeUp, finish, put_chips

MONDAY = datetime.datetime(2026, 10, 5, 5, 0, tzinfo=datetime.UTC)


def clock_at(moment: datetime.datetime) -> type[datetime.datetime]:
    """A `datetime` that says this moment when it is asked for now."""

    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Self:
            return cls.fromtimestamp(moment.timestamp(), tz)

    return Stopped


class Location:
    """A code location over a folder, with an instance of its own."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, tiles_per_run: int = 64) -> None:
        self.folder, self.instance = folder, instance
        self.stores = TileStores(*(Store(folder / name) for name in ("chips", "work", "output")))
        (folder / "chips").mkdir(exist_ok=True)
        (folder / "tiles.txt").write_text("\n".join(TILES))
        self.settings = Settings(
            {"CLAY_TILES": str(folder / "tiles.txt"), "CLAY_TILES_PER_RUN": str(tiles_per_run)}
        )
        self.resources: dict[str, Any] = {
            "chips": ObjectStore(uri=str(folder / "chips")),
            "work": ObjectStore(uri=str(folder / "work")),
            "output": ObjectStore(uri=str(folder / "output")),
            "stac": ObjectStore(uri=str(folder / "stac")),
            "encoder": given_encoder(AlreadyEmbedded(Store(folder / "none.ckpt"))),
        }
        self.build()

    def build(self) -> None:
        """Wire the code location, with the resources as they are now."""
        self.defs = build_defs(resource_overrides=self.resources, settings=self.settings)

    def schedule_tick(self, moment: datetime.datetime = MONDAY) -> Sequence[dg.RunRequest] | str:
        """What a tick of the schedule requests, or why it requests nothing."""
        with dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=moment,
            resources=self.resources,
            repository_def=self.defs.get_repository_def(),
        ) as context:
            data = self.defs.resolve_schedule_def("new_imagery_daily").evaluate_tick(context)
        return data.run_requests or data.skip_message or ""

    def sensor_tick(self, moment: datetime.datetime = MONDAY) -> Sequence[dg.RunRequest] | str:
        """The same of the sensor."""
        with (
            pytest.MonkeyPatch.context() as patch,
            dg.build_sensor_context(
                instance=self.instance, resources=self.resources, definitions=self.defs
            ) as context,
        ):
            patch.setattr("clay_assets.dagster.automation.datetime", clock_at(moment))
            data = self.defs.resolve_sensor_def("new_imagery").evaluate_tick(context)
        return data.run_requests or data.skip_message or ""


@pytest.fixture
def location(tmp_path: Path) -> Iterator[Location]:
    with dg.instance_for_test() as instance:
        yield Location(tmp_path, instance)


def requests_of(requests: Sequence[dg.RunRequest] | str) -> Sequence[dg.RunRequest]:
    """What a tick requested; fails with its reason where it requested nothing."""
    assert not isinstance(requests, str), requests
    return requests


def tiles_of(requests: Sequence[dg.RunRequest] | str) -> list[list[str]]:
    """The tiles of each request, as Dagster will take them."""
    tiles = []
    for request in requests_of(requests):
        first = request.partition_key or request.tags[RANGE_START]
        last = request.partition_key or request.tags[RANGE_END]
        tiles.append(list(TILES[TILES.index(first) : TILES.index(last) + 1]))
    return tiles


def seen(*states: State) -> list[TileState]:
    """Neighbours in these states."""
    return [TileState(f"T{index:02}", state, 1, 1, 1, 1, listed="x") for index, state in enumerate(states)]


def planned(states: Sequence[TileState], under_way: Sequence[str] = (), tiles_per_run: int = 64) -> list[str]:
    runs = plan_runs(states, under_way, tiles_per_run)
    return [" ".join(look.tile for look in run.tiles) for run in runs]


def test_neighbours_make_a_range_and_gaps_are_not_bridged() -> None:
    states = seen("new", "changed", "current", "new", "empty", "unusable", "stale", "changed")
    assert planned(states) == ["T00 T01", "T03", "T07"]


def test_ranges_are_cut_at_the_number_of_tiles_of_a_run() -> None:
    states = seen("new", "new", "new", "new", "new")
    assert planned(states, tiles_per_run=2) == ["T00 T01", "T02 T03", "T04"]
    assert planned(states, tiles_per_run=0) == ["T00 T01 T02 T03 T04"]


def test_tiles_that_only_lack_their_file_share_a_run_with_those_to_embed() -> None:
    states = seen("unpublished", "new", "unpublished", "current", "unpublished")
    assert planned(states) == ["T00 T01 T02", "T04"]
    (first, _) = plan_runs(states, (), 64)
    assert first.request("").tags["clay/why"] == "2 unpublished, 1 new"


def test_tiles_in_a_run_under_way_are_left_alone() -> None:
    assert planned(seen("new", "new", "new"), under_way=["T01"]) == ["T00", "T02"]


def test_new_imagery_in_three_tiles_makes_a_tick_request_exactly_those(location: Location) -> None:
    for tile in TILES[:5]:
        finish(location.stores, tile)
    nothing = location.schedule_tick()
    assert nothing == f"looked at 6 tiles under {location.folder / 'chips'}: 5 current, 1 empty"
    assert location.sensor_tick() == nothing

    for tile in (TILES[0], TILES[2], TILES[3]):
        put_chips(location.stores, tile, [9])

    expected = [[TILES[0]], [TILES[2], TILES[3]]]
    for requests in (location.schedule_tick(), location.sensor_tick()):
        assert tiles_of(requests) == expected
        assert not isinstance(requests, str)
        assert [request.tags["clay/tiles"] for request in requests] == ["27WXM", "27WXP, 27WXQ"]
        assert [request.tags["clay/why"] for request in requests] == ["1 changed", "2 changed"]


def keys(requests: Sequence[dg.RunRequest] | str) -> list[str | None]:
    """The run keys of what was requested."""
    return [request.run_key for request in requests_of(requests)]


def test_sensor_and_schedule_ask_once_a_day_for_each_state_of_the_chips(location: Location) -> None:
    put_chips(location.stores, TILES[0], [1])
    evening, tuesday = MONDAY.replace(hour=23, minute=59), MONDAY + datetime.timedelta(days=1)

    first = keys(location.sensor_tick())
    assert keys(location.sensor_tick(evening)) == first
    assert keys(location.schedule_tick()) == first, "what the sensor has requested is not requested again"
    word = str(first[0]).removeprefix("2026-10-05 ")
    assert keys(location.sensor_tick(tuesday)) == [f"2026-10-06 {word}"]
    assert keys(location.schedule_tick(tuesday)) == [f"2026-10-06 {word}"]

    put_chips(location.stores, TILES[0], [2])
    (changed,) = keys(location.sensor_tick())
    assert str(changed).startswith("2026-10-05 27WXM ")
    assert changed != first[0]


def test_a_tile_whose_run_failed_is_requested_again_by_the_sensor_of_the_next_day(location: Location) -> None:
    put_chips(location.stores, TILES[0], [1])
    job = location.defs.resolve_job_def("embed_and_publish")

    def launch(request: dg.RunRequest) -> dg.DagsterRun:
        """As the daemon does, which never launches a run key again."""
        tags = {**request.tags, RUN_KEY_TAG: str(request.run_key), SENSOR_NAME_TAG: "new_imagery"}
        before = location.instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: tags[RUN_KEY_TAG]}))
        assert not before, "this run key was launched already"
        return location.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)

    (request,) = requests_of(location.sensor_tick())
    run = launch(request)
    assert "1 of them are in queued or running runs" in str(location.sensor_tick())
    location.instance.report_run_failed(run)

    assert keys(location.sensor_tick()) == [request.run_key]
    (again,) = requests_of(location.sensor_tick(MONDAY + datetime.timedelta(days=1)))
    assert tiles_of([again]) == [[TILES[0]]]
    assert launch(again).run_id != run.run_id


def test_a_tick_says_that_the_manifest_has_grown_since_the_code_location_was_loaded(
    location: Location,
) -> None:
    manifest = location.folder / "tiles.txt"
    assert "reload" not in str(location.sensor_tick())

    manifest.write_text("\n".join([*TILES[1:], "31UFU", "32ULC"]))

    outdated = (
        f"{manifest} has 2 new tiles and lacks 1 since this code location was loaded: reload it"
        " (Deployment → Reload), and note that a range of an earlier run covers the tiles inserted in between"
    )
    for said in (location.sensor_tick(), location.schedule_tick()):
        assert said == f"looked at 6 tiles under {location.folder / 'chips'}: 6 empty; {outdated}"

    manifest.write_text("Reykjavik")
    assert "the manifest cannot be read any more: " in str(location.sensor_tick())


def test_a_checkpoint_that_no_run_has_used_makes_every_tile_new_and_a_missing_one_fails_the_tick(
    location: Location,
) -> None:
    put_chips(location.stores, TILES[0], [1])
    checkpoint = location.folder / "unknown.ckpt"
    location.resources["encoder"] = ClayEncoder(
        checkpoint=ObjectStore(uri=str(checkpoint)), cache=str(location.folder / "cache")
    )
    with pytest.raises(CheckpointMissing, match=r"no checkpoint at .*unknown.ckpt: set CLAY_CHECKPOINT"):
        location.sensor_tick()

    checkpoint.write_bytes(b"not read by a tick")

    assert tiles_of(location.sensor_tick()) == [[TILES[0]]]


def test_tiles_of_waiting_and_running_runs_are_not_requested_again(location: Location) -> None:
    for tile in TILES:
        put_chips(location.stores, tile, [1])
    asset_job = location.defs.resolve_implicit_global_asset_job_def()
    backfill = location.instance.create_run_for_job(
        asset_job,
        tags={RANGE_START: TILES[1], RANGE_END: TILES[2]},
        asset_selection=frozenset({dg.AssetKey("chip_embeddings")}),
        status=dg.DagsterRunStatus.NOT_STARTED,
    )
    location.instance.create_run_for_job(
        location.defs.resolve_job_def("embed_and_publish"),
        tags={"dagster/partition": TILES[4]},
        status=dg.DagsterRunStatus.STARTED,
    )
    assert tiles_of(location.sensor_tick()) == [[TILES[0]], [TILES[3]], [TILES[5]]]

    location.instance.report_run_canceled(backfill)
    assert tiles_of(location.sensor_tick()) == [list(TILES[:4]), [TILES[5]]]


def test_a_tick_says_how_many_tiles_are_in_runs_under_way(location: Location) -> None:
    put_chips(location.stores, TILES[0], [1])
    location.instance.create_run_for_job(
        location.defs.resolve_job_def("embed_and_publish"),
        tags={"dagster/partition": TILES[0]},
        status=dg.DagsterRunStatus.STARTING,
    )
    reason = location.sensor_tick()
    assert isinstance(reason, str)
    assert reason.endswith("1 new, 5 empty; 1 of them are in queued or running runs")


def test_a_requested_run_publishes_what_was_embedded_and_the_next_tick_finds_nothing_to_do(
    location: Location,
) -> None:
    for tile in TILES[:3]:
        put_chips(location.stores, tile, [1, 2])
        MadeUp().store(location.stores, tile)
    requests = location.schedule_tick()
    assert tiles_of(requests) == [list(TILES[:3])]
    assert not isinstance(requests, str)
    (request,) = requests

    job = location.defs.resolve_job_def("embed_and_publish")
    result = job.execute_in_process(instance=location.instance, tags=request.tags)

    assert result.success
    assert result.dagster_run.tags["dagster/max_retries"] == "2"
    for name in ASSETS:
        assert location.instance.get_materialized_partitions(dg.AssetKey(name)) == set(TILES[:3])
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks == dict.fromkeys((check.name for check in CHECKS), True)
    assert (
        location.schedule_tick() == f"looked at 6 tiles under {location.folder / 'chips'}: 3 current, 3 empty"
    )


def test_requested_runs_are_of_all_three_assets(location: Location) -> None:
    put_chips(location.stores, TILES[0], [1])
    requests = location.schedule_tick()
    assert not isinstance(requests, str)
    assert requests[0].asset_selection is None
    assert requests[0].partition_key == TILES[0]
    selected = location.defs.resolve_job_def("embed_and_publish").asset_layer.selected_asset_keys
    assert {key.to_user_string() for key in selected} == set(ASSETS)


def test_a_tick_fails_with_the_stores_own_words(tmp_path: Path, bucket: S3Bucket) -> None:
    with dg.instance_for_test() as instance:
        location = Location(tmp_path, instance)
        lost = {"uri": "s3://no-such-bucket-of-ours/chips", "endpoint_url": bucket.endpoint}
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "max_attempts": 1}
        location.resources["chips"] = ObjectStore(**lost, **keys)  # type: ignore[arg-type]
        with pytest.raises(BucketMissing, match=r"no-such-bucket-of-ours.*Check the bucket's name"):
            location.sensor_tick()


def test_both_are_off_until_switched_on_and_the_cron_is_told_in_words(location: Location) -> None:
    schedule = location.defs.resolve_schedule_def("new_imagery_daily")
    sensor = location.defs.resolve_sensor_def("new_imagery")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    minute, hour, *rest = DAILY.split()
    assert (schedule.cron_schedule, rest) == (DAILY, ["*", "*", "*"])
    assert f"Every day at {hour:0>2}:{minute:0>2} {schedule.execution_timezone}" == DAILY_IN_WORDS
    assert (schedule.description or "").startswith(DAILY_IN_WORDS)
    assert sensor.minimum_interval_seconds == 600
    assert (sensor.description or "").startswith("Every 10 minutes")
