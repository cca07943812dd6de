"""Verifies the behavior of Dagster that the ledger relies on: one materialization per finished tile."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.loader import LoadingContextForTest

from clay_assets.dagster.ledger import AssetRecord, TileLedger
from clay_assets.storage import TransferFailed
from clay_assets_tests.dagster.project import RANGE_END, RANGE_START, TILES, failure_of, message_of

SOURCE, LISTED, EMBEDDED = dg.AssetKey("source"), dg.AssetKey("listed"), dg.AssetKey("embedded")

Work = Callable[[str], None]


def nothing(tile: str) -> None:
    """Work that succeeds."""


def failing(errors: Mapping[str, BaseException]) -> Work:
    """Work that raises at some tiles."""

    def work(tile: str) -> None:
        if tile in errors:
            raise errors[tile]

    return work


def assets(work: Work = nothing, code_version: str = "1", chips: str = "as listed") -> list[Any]:
    """Two assets over the tiles, made by one op; the work of the second may fail.

    Args:
        work: Work of each tile.
        code_version: Code version of the second asset.
        chips: Data version of the first asset, which stands for its listing.
    """
    tiles = dg.StaticPartitionsDefinition(TILES)
    specs = [
        dg.AssetSpec(LISTED, deps=[SOURCE], skippable=True, partitions_def=tiles, code_version="1"),
        dg.AssetSpec(
            EMBEDDED, deps=[LISTED], skippable=True, partitions_def=tiles, code_version=code_version
        ),
    ]

    @dg.multi_asset(specs=specs, can_subset=True, backfill_policy=dg.BackfillPolicy.single_run())
    def make(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        ledger = TileLedger(context)

        def records(tile: str, *keys: dg.AssetKey) -> list[AssetRecord]:
            metadata = {"place": TILES.index(tile), "skipped": dg.MetadataValue.null()}
            return [AssetRecord(key, metadata, chips) for key in keys if key in context.selected_asset_keys]

        try:
            for tile in ledger.tiles:
                try:
                    work(tile)
                except Exception as error:
                    ledger.record(tile, records(tile, LISTED), error)
                else:
                    ledger.record(tile, records(tile, LISTED, EMBEDDED))
        except BaseException:
            ledger.keep()
            raise
        yield from ledger.results()

    return [dg.AssetSpec(SOURCE), make]


def downstream() -> dg.AssetsDefinition:
    """A user's asset."""

    @dg.asset(
        deps=[EMBEDDED],
        partitions_def=dg.StaticPartitionsDefinition(TILES),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def index() -> dg.MaterializeResult:
        return dg.MaterializeResult()

    return index


class Recorder:
    """An instance, runs on it, and its records of each tile."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance

    def run(
        self,
        made: Sequence[Any],
        first: str = TILES[0],
        last: str = TILES[-1],
        selection: Sequence[str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialize a range of tiles, as a run of a backfill does."""
        tags = {RANGE_START: first, RANGE_END: last}
        return dg.materialize(
            made, instance=self.instance, tags=tags, selection=selection, raise_on_error=False
        )

    def statuses(self, key: dg.AssetKey) -> dict[str, str]:
        """Status of each tile, as the UI shows it."""
        found = self.instance.get_status_by_partition(key, TILES, dg.StaticPartitionsDefinition(TILES))
        assert found is not None
        return {tile: status.value for tile, status in found.items() if status is not None}

    def events(self, key: dg.AssetKey) -> dict[str, list[dict[str, Any]]]:
        """Metadata of every materialization of each tile, the earliest first."""
        found: dict[str, list[dict[str, Any]]] = {}
        for record in reversed(self.instance.fetch_materializations(key, limit=100).records):
            assert record.partition_key is not None, "a materialization without a tile"
            assert record.asset_materialization is not None
            metadata = {name: value.value for name, value in record.asset_materialization.metadata.items()}
            found.setdefault(record.partition_key, []).append(metadata)
        return found

    def stale(self, code_version: str = "1") -> dict[str, StaleStatus]:
        """Whether the UI would show each tile of the second asset as stale under this version of the code."""
        graph = dg.Definitions(assets=assets(code_version=code_version)).resolve_asset_graph()
        resolver = CachingStaleStatusResolver(self.instance, graph, LoadingContextForTest(self.instance))
        return {tile: resolver.get_status(EMBEDDED, tile) for tile in TILES}


@pytest.fixture
def recorder(instance: dg.DagsterInstance) -> Recorder:
    return Recorder(instance)


def own_metadata(tiles: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """One materialization per tile, with its own metadata."""
    return {tile: [{"place": TILES.index(tile), "skipped": None}] for tile in tiles}


def test_a_tile_is_recorded_before_the_next_one_starts(recorder: Recorder) -> None:
    seen = []

    def observe(_tile: str) -> None:
        seen.append((recorder.events(LISTED), recorder.events(EMBEDDED)))

    result = recorder.run(assets(observe))

    assert result.success
    assert seen == [(own_metadata(TILES[:done]),) * 2 for done in range(len(TILES))]


def test_a_successful_run_records_one_materialization_per_tile(recorder: Recorder) -> None:
    result = recorder.run(assets())

    assert result.success
    for key in (LISTED, EMBEDDED):
        assert recorder.events(key) == own_metadata(TILES)
        assert recorder.statuses(key) == dict.fromkeys(TILES, "MATERIALIZED")


def test_a_single_tile_is_recorded_like_a_range(recorder: Recorder) -> None:
    result = dg.materialize(assets(), instance=recorder.instance, partition_key="27WXN")

    assert result.success
    assert recorder.events(EMBEDDED) == own_metadata(["27WXN"])
    assert recorder.statuses(EMBEDDED) == {"27WXN": "MATERIALIZED"}


def test_a_run_that_raises_records_the_finished_tiles_and_the_finished_assets_of_the_others(
    recorder: Recorder,
) -> None:
    result = recorder.run(assets(failing({"27WXP": TransferFailed("broke"), "27WXQ": ValueError("odd")})))

    others = [tile for tile in TILES if tile not in ("27WXP", "27WXQ")]
    assert not result.success
    assert recorder.events(LISTED) == own_metadata(TILES)
    assert recorder.statuses(LISTED) == dict.fromkeys(TILES, "MATERIALIZED")
    assert recorder.events(EMBEDDED) == own_metadata(others)
    assert recorder.statuses(EMBEDDED) == dict.fromkeys(others, "MATERIALIZED") | dict.fromkeys(
        ("27WXP", "27WXQ"), "FAILED"
    )
    assert message_of(result) == (
        "2 of 6 tiles failed; the other 4 are finished and recorded. 27WXP: TransferFailed: broke;"
        " 27WXQ: ValueError: odd"
    )
    table = failure_of(result).metadata["failed_tiles"]
    assert [dict(record.data) for record in table.records] == [
        {"tile": "27WXP", "error": "TransferFailed: broke"},
        {"tile": "27WXQ", "error": "ValueError: odd"},
    ]
    assert failure_of(result).metadata["finished"].value == 4


def test_a_failed_tile_that_succeeds_later_is_materialized(recorder: Recorder) -> None:
    recorder.run(assets(failing({"27WXP": TransferFailed("broke")})))

    recorder.run(assets(), first="27WXP", last="27WXP")

    assert recorder.events(EMBEDDED) == own_metadata(TILES)
    assert recorder.statuses(EMBEDDED) == dict.fromkeys(TILES, "MATERIALIZED")


@pytest.mark.parametrize("error", [KeyboardInterrupt, DagsterExecutionInterruptedError])
@pytest.mark.parametrize("others", [[], [downstream()]], ids=["alone", "with an asset downstream"])
def test_an_interrupted_run_records_the_finished_tiles(
    recorder: Recorder, error: type[BaseException], others: list[dg.AssetsDefinition]
) -> None:
    result = recorder.run([*assets(failing({"27WXQ": error()})), *others])

    assert not result.success
    assert recorder.events(EMBEDDED) == own_metadata(TILES[:3])
    done = {tile for tile, status in recorder.statuses(EMBEDDED).items() if status == "MATERIALIZED"}
    assert done == set(TILES[:3])


def test_an_asset_downstream_in_the_same_run_is_materialized_and_ours_are_recorded_once(
    recorder: Recorder,
) -> None:
    result = recorder.run([*assets(), downstream()])

    assert result.success
    for key in (LISTED, EMBEDDED):
        assert recorder.events(key) == own_metadata(TILES)
    assert recorder.statuses(dg.AssetKey("index")) == dict.fromkeys(TILES, "MATERIALIZED")


def test_an_asset_downstream_is_skipped_in_a_run_that_fails_and_ours_are_recorded(recorder: Recorder) -> None:
    result = recorder.run([*assets(failing({"27WXP": TransferFailed("broke")})), downstream()])

    assert not result.success
    assert recorder.events(LISTED) == own_metadata(TILES)
    assert recorder.events(EMBEDDED) == own_metadata([tile for tile in TILES if tile != "27WXP"])
    assert recorder.events(dg.AssetKey("index")) == {}


def test_a_range_that_selects_no_tile_fails(recorder: Recorder) -> None:
    result = recorder.run(assets(), first="27WXP", last="27WXM")

    assert not result.success
    assert message_of(result).startswith("the run selects no tiles: its partition range starts after its end")


@pytest.mark.parametrize("others", [[], [downstream()]], ids=["recorded live", "recorded at the end"])
@pytest.mark.parametrize("error", [None, TransferFailed("broke")], ids=["none failed", "one failed"])
def test_tiles_show_as_stale_when_the_code_version_changes(
    recorder: Recorder, error: Exception | None, others: list[dg.AssetsDefinition]
) -> None:
    recorder.run([*assets(failing({"28WDT": error} if error else {})), *others])
    finished = [tile for tile in TILES if error is None or tile != "28WDT"]

    same, other = recorder.stale("1"), recorder.stale("2")

    assert {same[tile] for tile in finished} == {StaleStatus.FRESH}
    assert {other[tile] for tile in finished} == {StaleStatus.STALE}


def test_a_tile_shows_as_stale_only_when_its_listing_changed(recorder: Recorder) -> None:
    recorder.run(assets())

    recorder.run(assets(chips="as listed"), first="27WXM", last="27WXN", selection=["listed"])
    assert recorder.stale() == dict.fromkeys(TILES, StaleStatus.FRESH)

    recorder.run(assets(chips="another chip"), first="27WXN", last="27WXN", selection=["listed"])
    assert recorder.stale() == dict.fromkeys(TILES, StaleStatus.FRESH) | {"27WXN": StaleStatus.STALE}

    recorder.run(assets(chips="another chip"), first="27WXN", last="27WXN", selection=["embedded"])
    assert recorder.stale() == dict.fromkeys(TILES, StaleStatus.FRESH)

    recorder.run(assets(chips="a third chip"), first="27WXN", last="27WXN", selection=["listed"])
    assert recorder.stale() == dict.fromkeys(TILES, StaleStatus.FRESH) | {"27WXN": StaleStatus.STALE}


def test_a_traceback_is_logged_only_for_bugs(recorder: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    recorder.run(assets(failing({"27WXN": TransferFailed("broke"), "27WXP": ZeroDivisionError("a bug")})))

    log = capfd.readouterr().err
    ours = log[log.index("tile 27WXN failed") : log.index("tile 27WXP failed")]
    bug = log[log.index("tile 27WXP failed") :].split("STEP_FAILURE")[0]
    assert "Traceback" not in ours
    assert "Traceback" in bug
    assert "ZeroDivisionError: a bug" in bug
