from dataclasses import replace
from pathlib import Path

import pytest

from clay_assets.results import chips_digest
from clay_assets.storage import FolderMissing, Store, StoredObject
from clay_assets.tiles.inventory import (
    InventoryMissing,
    inventory_key,
    list_chips,
    read_inventory,
    write_inventory,
)
from clay_assets_tests.geotiffs import chip_name
from clay_assets_tests.s3_server import S3Bucket


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        (tmp_path / "chips").mkdir()
        return Store(tmp_path / "chips")
    bucket: S3Bucket = request.getfixturevalue("bucket")
    return bucket.store("deep/chips")


def names(chips: tuple[StoredObject, ...]) -> list[str]:
    return [chip.url.rsplit("/", 1)[1] for chip in chips]


def test_chips_are_sorted_by_date_then_number(store: Store) -> None:
    june = [f"27WXN/2020-06-15/{chip_name(number)}" for number in (10, 9, 1_000, 100)]
    earlier = f"27WXN/later/{chip_name(5, date='2019-01-01')}"  # folders do not matter
    direct = f"27WXN/{chip_name(1, date='2021-01-01')}"
    for key in (*june, earlier, direct):
        store.write(key, b"chip")

    found = list_chips(store, "27WXN").chips

    assert [chip.url for chip in found] == [
        store.url(key) for key in (earlier, june[1], june[0], june[3], june[2], direct)
    ]
    assert all(chip.size == 4 and chip.etag for chip in found)


def test_files_with_other_names_come_last_and_other_objects_are_separate(store: Store) -> None:
    for name in (
        "a.tif",
        "Z.TIFF",
        chip_name(1),
        "notes.txt",
        "a.tif.aux.xml",
        "claytile_27WXN_2020_v02_1.tif",
    ):
        store.write(f"27WXN/{name}", b"something")

    found = list_chips(store, "27WXN")

    assert names(found.chips)[0] == chip_name(1)
    assert set(names(found.chips)[1:]) == {"a.tif", "Z.TIFF", "claytile_27WXN_2020_v02_1.tif"}
    assert names(found.others) == ["a.tif.aux.xml", "notes.txt"]


def test_neighbours_and_tiles_with_a_longer_name_are_left_out(store: Store) -> None:
    for folder in ("27WXN", "27WXP", "27WXN_old", "x/27WXN"):
        store.write(f"{folder}/{chip_name(1)}", b"chip")

    assert [chip.url for chip in list_chips(store, "27WXN").chips] == [store.url(f"27WXN/{chip_name(1)}")]


def test_tile_without_a_folder_has_no_chips(store: Store) -> None:
    store.write(f"27WXP/{chip_name(1)}", b"chip")

    found = list_chips(store, "27WXN")

    assert (found.chips, found.others) == ((), ())


def test_missing_folder_of_chips_is_an_error_and_not_an_empty_tile(tmp_path: Path) -> None:
    with pytest.raises(FolderMissing) as caught:
        list_chips(Store(tmp_path / "nowhere"), "27WXN")

    assert caught.value.systemic


def test_written_inventory_is_read_back_unchanged(store: Store) -> None:
    chips = [StoredObject(f"s3://chips/ü {number}.tif", 10**10 + number, "ä-1") for number in range(3)]

    write_inventory(store, "27WXN", chips)
    write_inventory(store, "27WXP", [])

    assert read_inventory(store, "27WXN") == chips
    assert read_inventory(store, "27WXP") == []


def test_missing_inventory_names_the_asset_to_materialize(store: Store) -> None:
    with pytest.raises(
        InventoryMissing, match=r"27WXN has no inventory at \S+: materialize chip_inventory first"
    ):
        read_inventory(store, "27WXN")


@pytest.mark.parametrize("content", [b"", b"PAR1 no more", b"text"])
def test_damaged_inventory_names_the_asset_to_materialize(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.write(inventory_key("27WXN"), content)

    with pytest.raises(
        InventoryMissing, match=r"27WXN at .* is damaged .*: materialize chip_inventory again"
    ):
        read_inventory(store, "27WXN")


def test_digest_changes_with_any_chip_and_with_nothing_else() -> None:
    one, two = StoredObject("s3://b/27WXN/a", 1, "x"), StoredObject("s3://b/27WXN/b", 2, "y")
    digest = chips_digest("27WXN", [one, two])

    assert chips_digest("27WXN", [two, one]) == digest
    moved = [replace(chip, url=chip.url.replace("s3://b", "/mnt/chips")) for chip in (one, two)]
    assert chips_digest("27WXN", moved) == digest
    others = [[one], [one, replace(two, etag="z")], [one, replace(two, url="s3://b/27WXN/c")], []]
    assert len({chips_digest("27WXN", chips) for chips in [[one, two], *others]}) == 5
