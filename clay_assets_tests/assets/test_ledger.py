from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import dagster as dg
import pytest

from clay_assets.ledger import TileLedger
from clay_assets.outcomes import NoUsableChips
from clay_assets.storage import AccessDenied, TransferFailed

TILES = ["33UUQ", "33UUR", "33UUS", "33UUT", "33UUU", "33UUV"]
RANGE = {"dagster/asset_partition_range_start": TILES[0], "dagster/asset_partition_range_end": TILES[-1]}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run(instance: dg.DagsterInstance, work: Callable[[str], int]) -> dg.ExecuteInProcessResult:
    """Materialize an asset over all tiles whose work on a tile is `work`."""

    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(TILES), backfill_policy=dg.BackfillPolicy.single_run()
    )
    def embeddings(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with TileLedger(context) as ledger:
            for tile in ledger.tiles:
                with ledger.tile(tile) as metadata:
                    metadata["chips"] = work(tile)
        return dg.MaterializeResult()

    return dg.materialize([embeddings], instance=instance, tags=RANGE, raise_on_error=False)


def recorded(instance: dg.DagsterInstance) -> dict[str, int]:
    """The metadata `chips` of each tile's materialization, each of which must be the only one."""
    events = instance.fetch_materializations(dg.AssetKey("embeddings"), limit=100).records
    counts = Counter(record.partition_key for record in events)
    assert set(counts.values()) <= {1}, f"some tile was recorded twice: {counts}"
    chips = {}
    for record in events:
        assert record.asset_materialization is not None
        assert record.partition_key is not None
        value = record.asset_materialization.metadata["chips"].value
        assert isinstance(value, int)
        chips[record.partition_key] = value
    return chips


def failed(instance: dg.DagsterInstance) -> set[str]:
    statuses = instance.get_status_by_partition(
        dg.AssetKey("embeddings"), TILES, dg.StaticPartitionsDefinition(TILES)
    )
    assert statuses is not None
    return {tile for tile, status in statuses.items() if status is not None and status.name == "FAILED"}


def failing(errors: dict[str, BaseException]) -> Callable[[str], int]:
    def work(tile: str) -> int:
        if tile in errors:
            raise errors[tile]
        return TILES.index(tile)

    return work


def test_each_tile_of_a_good_run_has_one_materialization_with_its_own_metadata(
    instance: dg.DagsterInstance,
) -> None:
    assert run(instance, failing({})).success
    assert recorded(instance) == {tile: index for index, tile in enumerate(TILES)}
    assert failed(instance) == set()


def test_a_tile_that_fails_leaves_the_others_recorded(instance: dg.DagsterInstance) -> None:
    result = run(instance, failing({TILES[2]: TransferFailed("s3://b/k broke")}))
    assert not result.success
    assert recorded(instance) == {tile: index for index, tile in enumerate(TILES) if index != 2}
    assert failed(instance) == {TILES[2]}


def test_a_systemic_error_stops_the_run_and_keeps_what_is_finished(instance: dg.DagsterInstance) -> None:
    tried: list[str] = []

    def work(tile: str) -> int:
        tried.append(tile)
        return failing({TILES[2]: AccessDenied("s3://b: denied")})(tile)

    assert not run(instance, work).success
    assert tried == TILES[:3]
    assert recorded(instance) == {TILES[0]: 0, TILES[1]: 1}
    assert failed(instance) == set(TILES[2:])


def test_the_third_tile_in_a_row_that_fails_alike_stops_the_run(instance: dg.DagsterInstance) -> None:
    tried: list[str] = []

    def work(tile: str) -> int:
        tried.append(tile)
        raise TransferFailed(
            f"s3://b/{tile}/chip_{len(tried)}.tif: connection reset after {len(tried)} tries"
        )

    assert not run(instance, work).success
    assert tried == TILES[:3]


def test_three_tiles_that_fail_otherwise_do_not_stop_the_run(instance: dg.DagsterInstance) -> None:
    errors: dict[str, BaseException] = {
        TILES[0]: TransferFailed("reset"),
        TILES[1]: ValueError("reset"),
        TILES[2]: TransferFailed("reset"),
    }
    assert not run(instance, failing(errors)).success
    assert set(recorded(instance)) == set(TILES[3:])


def test_tiles_without_usable_chips_never_stop_the_run(instance: dg.DagsterInstance) -> None:
    errors: dict[str, BaseException] = {tile: NoUsableChips("no chips") for tile in TILES[:5]}
    assert not run(instance, failing(errors)).success
    assert recorded(instance) == {TILES[5]: 5}
    assert failed(instance) == set(TILES[:5])


def test_an_interrupt_keeps_what_is_finished(instance: dg.DagsterInstance) -> None:
    with suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):  # or Dagster makes it a failed run
        assert not run(instance, failing({TILES[3]: KeyboardInterrupt()})).success
    assert recorded(instance) == {tile: index for index, tile in enumerate(TILES[:3])}
