"""Intermediate files that are damaged, of another version or of another tile are replaced, never used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clay_assets.pipeline import TileOutcome
from clay_assets.quality.report import REPORT_VERSION
from clay_assets.results import results_key
from clay_assets.tiles.inventory import InventoryMissing, inventory_key, read_inventory, write_inventory
from clay_assets_tests.embedding.scene import Scene, errors, process

TILE, OTHER = "27WXN", "27WXP"


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """Two tiles with the same chip numbers, embedded, published and checked."""
    scene.put(TILE, {1: 11, 2: 12})
    scene.put(OTHER, {1: 21, 2: 22})
    process_both(scene)
    scene.chips.take_reads()
    return scene


def process_both(scene: Scene) -> dict[str, TileOutcome]:
    """Run over both tiles."""
    outcomes = process(scene, [TILE, OTHER], check=True)
    assert set(errors(outcomes).values()) == {""}
    return outcomes


def path_in(scene: Scene, key: str) -> Path:
    """Path of an object of the work store."""
    return Path(scene.work.url(key))


def of_another_tile(path: Path, other: Path) -> None:
    shutil.copy(other, path)


def cut_short(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def of_another_version(path: Path, _: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns("etag"), path)


@pytest.mark.parametrize("damage", [of_another_tile, cut_short, of_another_version])
def test_unusable_results_are_replaced(
    scene: Scene, damage: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    fingerprint = scene.encoder().target().preferred
    path = path_in(scene, results_key(TILE, fingerprint))
    published = [scene.output.read(name) for name in scene.output_files()]
    damage(path, path_in(scene, results_key(OTHER, fingerprint)))

    process_both(scene)

    assert scene.chips.take_reads() == [1, 2]
    assert scene.values() == {1: 11, 2: 12}
    assert f"{path} is not used: expected results of tile {TILE}" in caplog.text
    assert [scene.output.read(name) for name in scene.output_files()] == published


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (of_another_tile, "is of 27WXP, expected 27WXN"),
        (cut_short, "is damaged"),
        (of_another_version, "is of another version"),
        (
            lambda path, _: pq.write_table(pq.read_table(path).replace_schema_metadata(), path),
            "is of no tile",
        ),
    ],
)
def test_an_unusable_inventory_is_refused_and_replaced_by_a_run(
    scene: Scene, damage: Callable[[Path, Path], None], message: str
) -> None:
    path = path_in(scene, inventory_key(TILE))
    damage(path, path_in(scene, inventory_key(OTHER)))
    with pytest.raises(InventoryMissing, match=f"{message}.*: materialize chip_inventory again"):
        read_inventory(scene.work, TILE)

    process_both(scene)
    assert [chip.url[-8:-4] for chip in read_inventory(scene.work, TILE)] == ["0001", "0002"]
    assert TILE in read_inventory(scene.work, TILE)[0].url


def test_an_inventory_with_invalid_utf_8_is_damaged(scene: Scene) -> None:
    write_inventory(scene.work, TILE, [])
    path = path_in(scene, inventory_key(TILE))
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    table = pa.table([bad, pa.array([1]), pa.array(["a"])], schema=pq.read_schema(path))
    pq.write_table(table, path)
    with pytest.raises(InventoryMissing, match="is damaged"):
        read_inventory(scene.work, TILE)


@pytest.mark.parametrize(
    "change",
    [
        {"tile": OTHER},
        {"version": REPORT_VERSION - 1},
        {"faults": 3},
        {"faults": {"norms_plausible": 3}},
        {"numbers": [1]},
        {"surprise": 1},
    ],
    ids=str,
)
def test_an_unusable_check_report_is_replaced(scene: Scene, change: dict[str, Any]) -> None:
    expected = process_both(scene)[TILE].reports["file"]
    path = path_in(scene, f"checks/{TILE}.file.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change | {"missing": "forged"}))

    assert process_both(scene)[TILE].reports["file"] == expected
    assert json.loads(path.read_text())["missing"] == ""
