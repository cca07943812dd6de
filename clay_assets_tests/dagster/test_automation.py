import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import dagster as dg
import pytest
from dagster._core.storage.tags import RUN_KEY_TAG, SENSOR_NAME_TAG

from clay_assets.dagster import ClayEncoder, ObjectStore, build_defs
from clay_assets.dagster.automation import RANGE_END, RANGE_START, daily_crons, plan_runs, run_request
from clay_assets.dagster.checks import CHECKS
from clay_assets.embedding.checkpoint_cache import CheckpointMissing
from clay_assets.settings import Settings
from clay_assets.state import State, TileState, TileStores, summarize
from clay_assets.storage import BucketMissing, StorageError, Store
from clay_assets_tests.dagster.project import ASSETS, AlreadyEmbedded, given_encoder
from clay_assets_tests.s3_server import S3Bucket
from clay_assets_tests.tile_scene import TILES, MadeUp, finish, put_chips

MONDAY = datetime.datetime(2026, 10, 5, 5, 0, tzinfo=datetime.UTC)


def datetime_at(moment: datetime.datetime) -> type[datetime.datetime]:
    """A `datetime` whose `now` is this moment."""

    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Self:
            return cls.fromtimestamp(moment.timestamp(), tz)

    return Fixed


class Location:
    """A code location over a folder, with an instance of its own."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, tiles_per_run: int = 64) -> None:
        self.folder, self.instance = folder, instance
        self.stores = TileStores(*(Store(folder / name) for name in ("chips", "work", "output")))
        (folder / "chips").mkdir(exist_ok=True)
        (folder / "tiles.txt").write_text("\n".join(TILES))
        self.settings = Settings.from_environment(
            {"CLAY_TILES": str(folder / "tiles.txt"), "CLAY_TILES_PER_RUN": str(tiles_per_run)}
        )
        self.resources: dict[str, Any] = {
            "chips": ObjectStore(uri=str(folder / "chips")),
            "work": ObjectStore(uri=str(folder / "work")),
            "output": ObjectStore(uri=str(folder / "output")),
            "stac": ObjectStore(uri=str(folder / "stac")),
            "encoder": given_encoder(AlreadyEmbedded(Store(folder / "none.ckpt"))),
        }
        self.cursor: str | None = None
        self.build()

    def build(self) -> None:
        """Wire the code location, with the current resources."""
        self.defs = build_defs(resource_overrides=self.resources, settings=self.settings)

    def schedule_tick(self, moment: datetime.datetime = MONDAY) -> Sequence[dg.RunRequest] | str:
        """The requests of a tick of the schedule, or the reason why there are none."""
        with dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=moment,
            resources=self.resources,
            repository_def=self.defs.get_repository_def(),
        ) as context:
            data = self.defs.resolve_schedule_def("new_imagery_daily").evaluate_tick(context)
        return data.run_requests or data.skip_message or ""

    def sensor_tick(self, moment: datetime.datetime = MONDAY) -> Sequence[dg.RunRequest] | str:
        """The same for the sensor."""
        with (
            pytest.MonkeyPatch.context() as patch,
            dg.build_sensor_context(
                instance=self.instance, resources=self.resources, definitions=self.defs, cursor=self.cursor
            ) as context,
        ):
            patch.setattr("clay_assets.dagster.automation.datetime", datetime_at(moment))
            data = self.defs.resolve_sensor_def("new_imagery").evaluate_tick(context)
        self.cursor = data.cursor
        return data.run_requests or data.skip_message or ""


@pytest.fixture
def location(tmp_path: Path) -> Iterator[Location]:
    with dg.instance_for_test() as instance:
        yield Location(tmp_path, instance)


def requests_of(requests: Sequence[dg.RunRequest] | str) -> Sequence[dg.RunRequest]:
    """The requests of a tick; fails with its reason if it requested nothing."""
    assert not isinstance(requests, str), requests
    return requests


def tiles_of(requests: Sequence[dg.RunRequest] | str) -> list[list[str]]:
    """The tiles of each request, as Dagster resolves them."""
    tiles = []
    for request in requests_of(requests):
        first = request.partition_key or request.tags[RANGE_START]
        last = request.partition_key or request.tags[RANGE_END]
        tiles.append(list(TILES[TILES.index(first) : TILES.index(last) + 1]))
    return tiles


def tile_states(*states: State) -> list[TileState]:
    """Adjacent tiles in these states."""
    return [
        TileState(f"T{index:02}", state, 1, 1, 1, 1, chips_digest="x") for index, state in enumerate(states)
    ]


def planned(states: Sequence[TileState], in_runs: Sequence[str] = (), tiles_per_run: int = 64) -> list[str]:
    runs = plan_runs(states, in_runs, tiles_per_run)
    return [" ".join(tile.tile for tile in run) for run in runs]


def test_adjacent_tiles_make_a_range_and_gaps_are_not_bridged() -> None:
    states = tile_states("new", "changed", "current", "new", "empty", "unusable", "stale", "changed")
    assert planned(states) == ["T00 T01", "T03", "T07"]


def test_ranges_are_split_at_the_number_of_tiles_of_a_run() -> None:
    states = tile_states("new", "new", "new", "new", "new")
    assert planned(states, tiles_per_run=2) == ["T00 T01", "T02 T03", "T04"]
    assert planned(states, tiles_per_run=0) == ["T00 T01 T02 T03 T04"]


def test_unpublished_tiles_share_a_run_with_tiles_to_embed() -> None:
    states = tile_states("unpublished", "new", "unpublished", "current", "unpublished")
    assert planned(states) == ["T00 T01 T02", "T04"]
    (first, _) = plan_runs(states, (), 64)
    assert run_request(first, "2026-10-05").tags["clay/why"] == "2 unpublished, 1 new"


def test_tiles_in_unfinished_runs_are_left_out() -> None:
    assert planned(tile_states("new", "new", "new"), in_runs=["T01"]) == ["T00", "T02"]


def test_a_tick_requests_exactly_the_tiles_with_new_imagery(location: Location) -> None:
    for tile in TILES[:5]:
        finish(location.stores, tile)
    nothing = location.schedule_tick()
    assert nothing == f"checked 6 tiles under {location.folder / 'chips'}: 5 current, 1 empty"
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
    """Run keys of the requests."""
    return [request.run_key for request in requests_of(requests)]


def test_sensor_and_schedule_request_each_state_of_the_chips_once_a_day(location: Location) -> None:
    put_chips(location.stores, TILES[0], [1])
    evening, tuesday = MONDAY.replace(hour=23, minute=59), MONDAY + datetime.timedelta(days=1)

    first = keys(location.sensor_tick())
    assert keys(location.sensor_tick(evening)) == first
    assert keys(location.schedule_tick()) == first, "the schedule requests the same as the sensor"
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
        """Launch as the daemon does, which launches a run key only once."""
        tags = {**request.tags, RUN_KEY_TAG: str(request.run_key), SENSOR_NAME_TAG: "new_imagery"}
        before = location.instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: tags[RUN_KEY_TAG]}))
        assert not before, "this run key was launched already"
        return location.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)

    (request,) = requests_of(location.sensor_tick())
    run = launch(request)
    assert "1 tiles are in queued or running runs" in str(location.sensor_tick())
    location.instance.report_run_failed(run)

    assert keys(location.sensor_tick()) == [request.run_key]
    (again,) = requests_of(location.sensor_tick(MONDAY + datetime.timedelta(days=1)))
    assert tiles_of([again]) == [[TILES[0]]]
    assert launch(again).run_id != run.run_id


def test_a_tick_reports_a_manifest_that_has_changed_since_the_code_location_was_loaded(
    location: Location,
) -> None:
    manifest = location.folder / "tiles.txt"
    assert "reload" not in str(location.sensor_tick())

    manifest.write_text("\n".join([*TILES[1:], "31UFU", "32ULC"]))

    outdated = (
        f"{manifest} has 2 new tiles and lacks 1 since this code location was loaded: reload it"
        " (Deployment → Reload); a range of an earlier run then covers the tiles inserted in between, too"
    )
    for reason in (location.sensor_tick(), location.schedule_tick()):
        assert reason == f"checked 6 tiles under {location.folder / 'chips'}: 6 empty; {outdated}"

    manifest.write_text("Reykjavik")
    assert "the manifest can no longer be read: " in str(location.sensor_tick())


def test_with_an_unused_checkpoint_every_tile_is_new_and_without_a_checkpoint_the_tick_fails(
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


def test_tiles_of_queued_and_running_runs_are_not_requested_again(location: Location) -> None:
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


def test_a_tick_reports_how_many_tiles_are_in_unfinished_runs(location: Location) -> None:
    put_chips(location.stores, TILES[0], [1])
    location.instance.create_run_for_job(
        location.defs.resolve_job_def("embed_and_publish"),
        tags={"dagster/partition": TILES[0]},
        status=dg.DagsterRunStatus.STARTING,
    )
    reason = location.sensor_tick()
    assert isinstance(reason, str)
    assert reason.endswith("1 new, 5 empty; 1 tiles are in queued or running runs")


def test_a_requested_run_publishes_embedded_tiles_and_the_next_tick_requests_nothing(
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
        location.schedule_tick() == f"checked 6 tiles under {location.folder / 'chips'}: 3 current, 3 empty"
    )


def test_requested_runs_select_all_three_assets(location: Location) -> None:
    put_chips(location.stores, TILES[0], [1])
    requests = location.schedule_tick()
    assert not isinstance(requests, str)
    assert requests[0].asset_selection is None
    assert requests[0].partition_key == TILES[0]
    selected = location.defs.resolve_job_def("embed_and_publish").asset_layer.selected_asset_keys
    assert {key.to_user_string() for key in selected} == set(ASSETS)


def test_a_tick_fails_with_the_error_of_the_store(tmp_path: Path, bucket: S3Bucket) -> None:
    with dg.instance_for_test() as instance:
        location = Location(tmp_path, instance)
        lost = {"uri": "s3://no-such-bucket-of-ours/chips", "endpoint_url": bucket.endpoint}
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "max_attempts": 1}
        location.resources["chips"] = ObjectStore(**lost, **keys)  # type: ignore[arg-type]
        with pytest.raises(BucketMissing, match=r"no-such-bucket-of-ours.*Check the bucket's name"):
            location.sensor_tick()


@pytest.fixture
def split(location: Location, monkeypatch: pytest.MonkeyPatch) -> Location:
    """A code location with two tiles per tick; the second, third and last tile have new chips."""
    monkeypatch.setattr("clay_assets.dagster.automation.TILES_PER_TICK", 2)
    location.build()
    for tile in (TILES[1], TILES[2], TILES[5]):
        put_chips(location.stores, tile, [1])
    return location


def test_the_schedule_surveys_a_large_manifest_in_several_ticks(split: Location) -> None:
    schedule = split.defs.resolve_schedule_def("new_imagery_daily")
    assert schedule.cron_schedule == ["0,2,4 5 * * *"]
    assert str(schedule.description).startswith("Every day at 05:00 UTC, in 3 ticks 2 minutes apart: ")

    ticks = [split.schedule_tick(MONDAY.replace(minute=minute)) for minute in (0, 2, 4)]

    assert [tiles_of(requests) for requests in ticks] == [[[TILES[1]]], [[TILES[2]]], [[TILES[5]]]]
    split.stores.chips.delete(split.stores.chips.list(f"{TILES[1]}/")[0])
    found = (
        f"checked 2 tiles under {split.folder / 'chips'}: 2 empty; 27WXM to 27WXN of 6 tiles, the others in"
    )
    assert str(split.schedule_tick()).startswith(found)


def test_the_sensor_surveys_a_large_manifest_part_by_part_and_a_failed_part_in_the_next_round(
    split: Location,
) -> None:
    assert tiles_of(split.sensor_tick()) == [[TILES[1]]]
    (split.folder / "chips").rename(split.folder / "lost")
    with pytest.raises(StorageError):
        split.sensor_tick()
    (split.folder / "lost").rename(split.folder / "chips")
    assert tiles_of(split.sensor_tick()) == [[TILES[5]]]
    assert tiles_of(split.sensor_tick()) == [[TILES[1]]]
    assert tiles_of(split.sensor_tick()) == [[TILES[2]]]


def test_a_tick_of_the_sensor_ends_well_while_another_one_surveys_other_tiles(
    split: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    during = []

    def slow(states: Sequence[TileState], uri: str) -> str:
        monkeypatch.setattr("clay_assets.dagster.automation.summarize", summarize)  # for the other tick
        during.extend(tiles_of(split.sensor_tick()))
        return summarize(states, uri)

    monkeypatch.setattr("clay_assets.dagster.automation.summarize", slow)
    assert tiles_of(split.sensor_tick()) == [[TILES[1]]]
    assert during == [[TILES[2]]]


@pytest.mark.parametrize(
    ("ticks", "crons"),
    [(1, ["0 5 * * *"]), (31, [f"{','.join(map(str, range(0, 60, 2)))} 5 * * *", "0 6 * * *"])],
)
def test_each_tick_of_a_day_has_its_own_minute(ticks: int, crons: list[str]) -> None:
    assert daily_crons(ticks) == crons


def test_a_tick_finds_new_imagery_in_a_tile_that_an_earlier_tick_found_current(location: Location) -> None:
    for tile in TILES:
        finish(location.stores, tile)
    location.schedule_tick()

    put_chips(location.stores, TILES[3], [9])

    for requests in (location.sensor_tick(), location.schedule_tick()):
        assert tiles_of(requests) == [[TILES[3]]]


def test_schedule_and_sensor_are_off_by_default_and_state_their_times(location: Location) -> None:
    schedule = location.defs.resolve_schedule_def("new_imagery_daily")
    sensor = location.defs.resolve_sensor_def("new_imagery")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    assert schedule.cron_schedule == ["0 5 * * *"]
    assert (schedule.description or "").startswith(f"Every day at 05:00 {schedule.execution_timezone}: ")
    assert sensor.minimum_interval_seconds == 600
    assert (sensor.description or "").startswith("Every 10 minutes")
