from pathlib import Path

import pytest

from clay_assets.embedding.plan import TilePlan, plan_tile
from clay_assets.results import results_key
from clay_assets.state import TileStores
from clay_assets.storage import Store
from clay_assets.tiles.inventory import list_chips, read_inventory, write_inventory
from clay_assets_tests.embedding.streaming import number_of
from clay_assets_tests.geotiffs import chip_name
from clay_assets_tests.tile_scene import (
    FINGERPRINT,
    MadeUp,
    damage_pages,
    embedded_at_level,
    put_chips,
    target_of,
)

TILE = "27WXN"


@pytest.fixture
def stores(tmp_path: Path) -> TileStores:
    """Three chips and their results."""
    made = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    put_chips(made, TILE, [1, 2, 3])
    MadeUp().store(made, TILE)
    return made


def plan(stores: TileStores, *, force: bool = False) -> TilePlan:
    return plan_tile(stores.work, TILE, read_inventory(stores.work, TILE), target_of(), force=force)


def todo(plan: TilePlan) -> list[int]:
    return [number_of(chip) for chip in plan.todo]


def test_tile_whose_results_account_for_its_chips_is_current(stores: TileStores) -> None:
    current = plan(stores)

    assert (current.is_current, todo(current)) == (True, [])
    assert current.header is not None
    assert current.header.summary.embedded == 3


def test_tile_without_results_is_embedded(stores: TileStores) -> None:
    chips = read_inventory(stores.work, TILE)

    other = plan_tile(stores.work, "27WXP", chips, target_of())

    assert (other.is_current, other.header, todo(other)) == (False, None, [1, 2, 3])


def test_unfinished_results_are_not_current_even_if_the_missing_chips_are_gone(stores: TileStores) -> None:
    MadeUp(remaining=2).store(stores, TILE)

    unfinished = plan(stores)

    assert (unfinished.is_current, todo(unfinished), list(unfinished.kept)) == (False, [], [0, 1, 2])


@pytest.mark.parametrize("reason", ["force", "level", "damaged"])
def test_without_usable_results_every_chip_is_embedded(stores: TileStores, reason: str) -> None:
    if reason == "level":
        stores.work.delete(results_key(TILE, FINGERPRINT))
        MadeUp(fingerprint=embedded_at_level("patch")).store(stores, TILE)
    if reason == "damaged":
        stores.chips.delete(f"{TILE}/2020-06-15/{chip_name(3)}")
        write_inventory(stores.work, TILE, list_chips(stores.chips, TILE).chips)
        damage_pages(stores.work, TILE, "etag")

    stale = plan(stores, force=reason == "force")

    listed = [1, 2] if reason == "damaged" else [1, 2, 3]
    assert (stale.is_current, stale.header, todo(stale), list(stale.kept)) == (False, None, listed, [])


def test_changed_chips_are_embedded_and_the_rows_of_the_others_are_kept(stores: TileStores) -> None:
    put_chips(stores, TILE, [2], content=b"processed once more")
    put_chips(stores, TILE, [4])
    stores.chips.delete(f"{TILE}/2020-06-15/{chip_name(3)}")
    chips = list_chips(stores.chips, TILE).chips

    changed = plan_tile(stores.work, TILE, chips, target_of())

    assert (changed.is_current, todo(changed), list(changed.kept)) == (False, [2, 4], [0])
    assert changed.header is not None
