"""Pins the behaviour of Dagster that the ledger rests on: each tile's own status and materialization."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.loader import LoadingContextForTest

from clay_assets.dagster.ledger import TileLedger
from clay_assets.results.outcomes import NoUsableChips
from clay_assets.storage import AccessDenied, BucketMissing, ObjectMissing, TransferFailed

TILES = ["27WXM", "27WXN", "27WXP", "27WXQ", "27WXR", "27WXS"]
UPSTREAM, ASSET = dg.AssetKey("upstream"), dg.AssetKey("embedded")

Work = Callable[[str], Mapping[str, Any]]


def chips(tile: str) -> Mapping[str, Any]:
    """Metadata of its own for each tile."""
    return {"chips": TILES.index(tile), "skipped chips": dg.MetadataValue.null()}


def failing(errors: Mapping[str, BaseException]) -> Work:
    """Raises at some tiles."""

    def work(tile: str) -> Mapping[str, Any]:
        if tile in errors:
            raise errors[tile]
        return chips(tile)

    return work


def assets(work: Work = chips, code_version: str = "1") -> list[dg.AssetsDefinition]:
    """Two assets over the tiles; the second does the work."""
    tiles, policy = dg.StaticPartitionsDefinition(TILES), dg.BackfillPolicy.single_run()

    @dg.asset(partitions_def=tiles, backfill_policy=policy)
    def upstream(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with TileLedger(context) as ledger:
            for tile in ledger.tiles:
                with ledger.tile(tile):
                    pass
        return dg.MaterializeResult()

    @dg.asset(partitions_def=tiles, backfill_policy=policy, deps=[upstream], code_version=code_version)
    def embedded(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with TileLedger(context) as ledger:
            for tile in ledger.tiles:
                with ledger.tile(tile) as metadata:
                    metadata |= work(tile)
        return dg.MaterializeResult()

    return [upstream, embedded]


class Book:
    """An instance, runs on it, and what it says of each tile afterwards."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance

    def run(
        self, work: Work = chips, first: str = TILES[0], last: str = TILES[-1]
    ) -> dg.ExecuteInProcessResult:
        """Run both assets over a range of tiles, as a backfill does."""
        tags = {
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        }
        return dg.materialize(assets(work), instance=self.instance, tags=tags, raise_on_error=False)

    def statuses(self) -> dict[str, str]:
        """As the UI shows them."""
        found = self.instance.get_status_by_partition(ASSET, TILES, dg.StaticPartitionsDefinition(TILES))
        assert found is not None
        return {tile: status.value for tile, status in found.items() if status is not None}

    def events(self) -> dict[str, list[dict[str, Any]]]:
        """Metadata of every materialization of each tile, the earliest first."""
        found: dict[str, list[dict[str, Any]]] = {}
        for record in reversed(self.instance.fetch_materializations(ASSET, limit=100).records):
            assert record.partition_key is not None, "a materialization without a tile"
            assert record.asset_materialization is not None
            metadata = {name: value.value for name, value in record.asset_materialization.metadata.items()}
            found.setdefault(record.partition_key, []).append(metadata)
        return found

    def stale(self, code_version: str = "1") -> dict[str, StaleStatus]:
        """Whether the UI would show each tile as stale under this version of the code."""
        graph = dg.Definitions(assets=assets(code_version=code_version)).resolve_asset_graph()
        resolver = CachingStaleStatusResolver(self.instance, graph, LoadingContextForTest(self.instance))
        return {tile: resolver.get_status(ASSET, tile) for tile in TILES}


@pytest.fixture
def book() -> Iterator[Book]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Book(instance)


def failure_of(result: dg.ExecuteInProcessResult) -> StepFailureData:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.event_specific_data
    assert isinstance(data, StepFailureData)
    return data


def message_of(result: dg.ExecuteInProcessResult) -> str:
    details = failure_of(result).user_failure_data
    assert details is not None
    assert details.description is not None
    return details.description


def own_metadata(*tiles: str) -> dict[str, list[dict[str, Any]]]:
    """One materialization a tile, with that tile's metadata."""
    return {tile: [{"chips": TILES.index(tile), "skipped chips": None}] for tile in tiles}


def test_a_run_that_succeeds_gives_each_tile_one_materialization_of_its_own(book: Book) -> None:
    result = book.run()

    assert result.success
    assert book.events() == own_metadata(*TILES)
    assert book.statuses() == dict.fromkeys(TILES, "MATERIALIZED")


def test_a_single_tile_is_recorded_like_a_range(book: Book) -> None:
    result = dg.materialize(assets(), instance=book.instance, partition_key="27WXN")

    assert result.success
    assert book.events() == own_metadata("27WXN")
    assert book.statuses() == {"27WXN": "MATERIALIZED"}


def test_one_failed_tile_fails_the_run_and_leaves_the_others_standing(book: Book) -> None:
    result = book.run(failing({"27WXP": TransferFailed("27WXP broke")}))

    others = [tile for tile in TILES if tile != "27WXP"]
    assert not result.success
    assert book.events() == own_metadata(*others)
    assert book.statuses() == dict.fromkeys(others, "MATERIALIZED") | {"27WXP": "FAILED"}
    assert message_of(result) == (
        "1 of 6 tiles failed; the other 5 are finished and recorded. 27WXP: TransferFailed: 27WXP broke"
    )


def test_failed_tiles_are_in_the_failure_s_table(book: Book) -> None:
    result = book.run(failing({"27WXP": TransferFailed("broke"), "27WXR": ValueError("odd")}))

    details = failure_of(result).user_failure_data
    assert details is not None
    table = details.metadata["failed_tiles"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [dict(record.data) for record in table.records] == [
        {"tile": "27WXP", "error": "TransferFailed: broke"},
        {"tile": "27WXR", "error": "ValueError: odd"},
    ]
    assert details.metadata["finished"].value == 4


def test_a_failed_tile_that_succeeds_later_is_materialized(book: Book) -> None:
    book.run(failing({"27WXP": TransferFailed("broke")}))

    book.run(first="27WXP", last="27WXP")

    assert book.events() == own_metadata(*TILES)
    assert book.statuses() == dict.fromkeys(TILES, "MATERIALIZED")


def test_a_systemic_error_stops_the_run_and_keeps_what_is_finished(book: Book) -> None:
    reached: list[str] = []

    def work(tile: str) -> Mapping[str, Any]:
        reached.append(tile)
        if tile == "27WXP":
            raise BucketMissing("s3://nowhere: the bucket does not exist")
        return chips(tile)

    result = book.run(work)

    assert reached == TILES[:3]
    assert book.events() == own_metadata(*TILES[:2])
    assert book.statuses() == {tile: "MATERIALIZED" if tile in TILES[:2] else "FAILED" for tile in TILES}
    assert message_of(result).startswith(
        "stopped at tile 27WXP, because every other tile would fail the same way: BucketMissing: s3://nowhere"
    )


def test_three_tiles_that_fail_alike_in_a_row_stop_the_run(book: Book) -> None:
    reached: list[str] = []

    def work(tile: str) -> Mapping[str, Any]:
        reached.append(tile)
        if tile != "27WXM":
            raise TransferFailed(
                f"s3://bucket/{tile}/chip_{len(reached)}.tif: got {len(reached)} bytes of {tile}"
            )
        return chips(tile)

    result = book.run(work)

    assert reached == TILES[:4]
    assert book.events() == own_metadata("27WXM")
    assert message_of(result).startswith("stopped at tile 27WXQ, the third in a row that failed alike: Tran")


@pytest.mark.parametrize(
    "errors",
    [
        {tile: TransferFailed("broke") for tile in TILES if tile not in ("27WXN", "27WXQ")},
        {
            "27WXM": TransferFailed("broke"),
            "27WXN": ObjectMissing("gone"),
            "27WXP": TransferFailed("broke"),
            "27WXQ": ObjectMissing("gone"),
        },
        {tile: NoUsableChips("sea") for tile in TILES[:5]},
        {"27WXN": AccessDenied("one object")},
    ],
    ids=["not in a row", "not alike", "tiles without usable chips", "an object that may not be read"],
)
def test_other_failures_do_not_stop_the_run(book: Book, errors: dict[str, BaseException]) -> None:
    result = book.run(failing(errors))

    finished = [tile for tile in TILES if tile not in errors]
    assert "27WXS" in {*finished, *errors}
    assert message_of(result).startswith(f"{len(errors)} of 6 tiles failed; the other {len(finished)} are")
    assert set(book.events()) == set(finished)


@pytest.mark.parametrize("error", [KeyboardInterrupt, DagsterExecutionInterruptedError])
def test_an_interrupted_run_keeps_what_is_finished(book: Book, error: type[BaseException]) -> None:
    reached: list[str] = []

    def work(tile: str) -> Mapping[str, Any]:
        reached.append(tile)
        if tile == "27WXQ":
            raise error
        return chips(tile)

    result = book.run(work)

    assert not result.success
    assert reached == TILES[:4]
    assert book.events() == own_metadata(*TILES[:3])
    assert {tile for tile, status in book.statuses().items() if status == "MATERIALIZED"} == set(TILES[:3])


def test_an_error_outside_of_the_tiles_keeps_what_is_finished(book: Book) -> None:
    tiles = dg.StaticPartitionsDefinition(TILES)

    @dg.asset(partitions_def=tiles, name="embedded")
    def embedded(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with TileLedger(context) as ledger:
            with ledger.tile("27WXN") as metadata:
                metadata |= chips("27WXN")
            raise RuntimeError("the stream could not be closed")
        return dg.MaterializeResult()

    result = dg.materialize([embedded], instance=book.instance, partition_key="27WXN", raise_on_error=False)

    assert not result.success
    assert book.events() == own_metadata("27WXN")


def test_a_range_that_selects_no_tile_fails(book: Book) -> None:
    result = book.run(first="27WXP", last="27WXM")

    assert not result.success
    assert message_of(result).startswith("the run selects no tiles: its partition range starts after its end")


@pytest.mark.parametrize("error", [None, TransferFailed("broke")], ids=["all well", "one failed"])
def test_tiles_show_as_stale_when_the_code_version_changes(book: Book, error: Exception | None) -> None:
    book.run(failing({"27WXS": error} if error else {}))
    finished = [tile for tile in TILES if error is None or tile != "27WXS"]

    same, other = book.stale("1"), book.stale("2")

    assert {same[tile] for tile in finished} == {StaleStatus.FRESH}
    assert {other[tile] for tile in finished} == {StaleStatus.STALE}


def test_tiles_show_as_stale_when_what_they_depend_on_is_made_again(book: Book) -> None:
    book.run(failing({"27WXS": TransferFailed("broke")}))

    dg.materialize(assets()[:1], instance=book.instance, partition_key="27WXN")

    stale = book.stale()
    assert stale["27WXN"] == StaleStatus.STALE
    assert stale["27WXP"] == StaleStatus.FRESH


def test_a_traceback_is_logged_for_bugs_only(book: Book, capfd: pytest.CaptureFixture[str]) -> None:
    book.run(failing({"27WXN": TransferFailed("broke"), "27WXP": ZeroDivisionError("a bug")}))

    log = capfd.readouterr().err
    ours = log[log.index("tile 27WXN failed") : log.index("tile 27WXP failed")]
    bug = log[log.index("tile 27WXP failed") :].split("STEP_FAILURE")[0]
    assert "Traceback" not in ours
    assert "Traceback" in bug
    assert "ZeroDivisionError: a bug" in bug
