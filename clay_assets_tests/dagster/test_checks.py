"""The asset checks in Dagster: over the finished tiles of a run, or launched on their own."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import dagster as dg
import numpy as np
import pytest

from clay_assets.dagster.checks import CHECKS
from clay_assets.publishing.publish import publish_tile
from clay_assets.results import results_key
from clay_assets.storage import AccessDenied, Store, StoredObject
from clay_assets.tiles.inventory import write_inventory
from clay_assets_tests.dagster.project import TILES, AlreadyEmbedded, Project, plain
from clay_assets_tests.embedding.scene import ChipStore
from clay_assets_tests.tile_scene import (
    FINGERPRINT,
    MadeUp,
    Vectors,
    clay_like,
    finish,
    put_chips,
    target_of,
)

ON_INVENTORY = {"tile_has_chips"}
ON_RESULTS = {
    "every_chip_accounted_for",
    "vectors_finite_and_of_the_right_width",
    "norms_plausible",
    "no_two_rows_alike",
    "not_collapsed",
}
ON_FILE = {"file_readable_and_valid", "geometry_inside_the_tile", "version_holds_one_model"}


class CountingStore(Store):
    """A store that counts how often each key is opened or read."""

    def __init__(self, uri: Path) -> None:
        super().__init__(uri)
        self.reads: Counter[str] = Counter()

    def open(self, target: StoredObject | str) -> BinaryIO:
        """As `Store`."""
        self._count(target)
        return super().open(target)

    def read(self, target: StoredObject | str) -> bytes:
        """As `Store`."""
        self._count(target)
        return super().read(target)

    def _count(self, target: StoredObject | str) -> None:
        url = target if isinstance(target, str) else target.url
        self.reads[url.removeprefix(f"{self.uri}/")] += 1


@pytest.fixture
def project(tmp_path: Path, instance: dg.DagsterInstance) -> Project:
    """A project whose tiles have made-up results."""
    project = Project(tmp_path, instance, TILES)
    project.encoder = AlreadyEmbedded(project.scene.encoder().checkpoint)
    project.scene.work = CountingStore(tmp_path / "work")
    project.scene.output = CountingStore(tmp_path / "output")
    return project


def two_equal_vectors(count: int) -> Vectors:
    vectors = clay_like(count)
    vectors[7] = vectors[3]
    return vectors


def test_each_check_belongs_to_the_asset_that_it_checks_and_none_is_blocking(project: Project) -> None:
    (_, assets) = project.assets()

    specs = {spec.name: spec for spec in assets.check_specs}
    assert {
        name for name, spec in specs.items() if spec.asset_key == dg.AssetKey("chip_inventory")
    } == ON_INVENTORY
    assert {
        name for name, spec in specs.items() if spec.asset_key == dg.AssetKey("chip_embeddings")
    } == ON_RESULTS
    assert {
        name for name, spec in specs.items() if spec.asset_key == dg.AssetKey("embeddings_geoparquet")
    } == ON_FILE
    assert not any(spec.blocking for spec in specs.values())
    assert all(spec.description for spec in specs.values())


def test_good_tiles_pass_every_check_with_their_numbers(project: Project) -> None:
    for tile in TILES[:3]:
        finish(project.scene.stores, tile, MadeUp(skipped=1), chips=20)

    result = project.run(first=TILES[0], last=TILES[2])

    assert result.success
    checks = project.checks(result)
    assert checks.keys() == ON_INVENTORY | ON_RESULTS | ON_FILE
    assert [name for name, check in checks.items() if not check.passed] == []
    assert {check.description for check in checks.values()} == {"3 tiles have no fault"}
    assert plain(checks["every_chip_accounted_for"]) == {
        "tiles checked": 3,
        "chips": 60,
        "embedded": 57,
        "skipped": 3,
        "bad tiles": None,
        "not checked": None,
    }
    norms = np.linalg.norm(clay_like(20)[1:], axis=1)
    assert plain(checks["norms_plausible"])["smallest norm"] == pytest.approx(norms.min(), abs=1e-4)
    assert plain(checks["vectors_finite_and_of_the_right_width"])["vectors checked"] == 57
    assert plain(checks["no_two_rows_alike"])["duplicate vectors"] == 0
    assert plain(checks["not_collapsed"])["tiles compared"] == 3
    assert plain(checks["file_readable_and_valid"])["rows"] == 57
    assert plain(checks["geometry_inside_the_tile"])["footprints"] == 57


def test_a_bad_tile_is_named_with_its_fault_and_still_published(project: Project) -> None:
    finish(project.scene.stores, TILES[0], chips=20)
    put_chips(project.scene.stores, TILES[1], range(1, 21))
    MadeUp(vectors=two_equal_vectors).store(project.scene.stores, TILES[1])

    result = project.run(first=TILES[0], last=TILES[1])

    assert result.success
    assert [name[:5] for name in project.published()] == list(TILES[:2])
    checks = project.checks(result)
    assert [name for name, check in checks.items() if not check.passed] == ["no_two_rows_alike"]
    found = checks["no_two_rows_alike"]
    assert found.description == f"1 of 2 tiles: {TILES[1]}"
    (row,) = plain(found)["bad tiles"]
    assert row["tile"] == TILES[1]
    assert row["fault"].startswith("1 duplicate vectors, such as that of ")
    warn, error = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
    warnings = ("tile_has_chips", "norms_plausible", "no_two_rows_alike", "not_collapsed")
    assert {name: check.severity for name, check in checks.items()} == dict.fromkeys(
        ON_RESULTS | ON_FILE, error
    ) | dict.fromkeys(warnings, warn)


def test_the_checks_of_a_run_that_fails_cover_the_finished_tiles(project: Project) -> None:
    for tile in TILES:
        finish(project.scene.stores, tile)

    class Broken(ChipStore):
        def list(self, prefix: str = "") -> list[StoredObject]:
            if prefix == "27WXN/":
                raise AccessDenied(f"{prefix}: denied")
            return super().list(prefix)

    project.scene.chips = Broken(project.root / "chips")
    result = project.run(last=TILES[2])

    assert not result.success
    checks = project.checks(result)
    assert checks.keys() == ON_INVENTORY | ON_RESULTS | ON_FILE
    assert {(plain(check)["tiles checked"], check.passed) for check in checks.values()} == {(2, True)}


def test_a_current_tile_is_not_read_again_by_its_checks(project: Project) -> None:
    for tile in TILES[:2]:
        finish(project.scene.stores, tile)
    work, output = project.scene.work, project.scene.output
    assert isinstance(work, CountingStore)
    assert isinstance(output, CountingStore)

    def reads() -> dict[str, int]:
        """How often each file of results, and all published files, were read in a run."""
        work.reads.clear()
        output.reads.clear()
        result = project.run(last=TILES[1])
        assert {plain(check)["tiles checked"] for check in project.checks(result).values()} == {2}
        found = {tile: work.reads[results_key(tile, FINGERPRINT)] for tile in TILES[:2]}
        return found | {"published": output.reads.total()}

    first, second = reads(), reads()

    # Planning and publishing read the footers.
    assert second == {TILES[0]: 2, TILES[1]: 2, "published": 2}
    assert first == {TILES[0]: 3, TILES[1]: 3, "published": 6}, "once to check, once for the STAC Item"

    shutil.rmtree(project.root / "work" / "checks")
    assert reads() == first | {"published": 4}


def test_checks_launched_on_their_own_cover_the_whole_manifest_and_read_everything_again(
    project: Project,
) -> None:
    for tile in TILES[:3]:
        finish(project.scene.stores, tile)
    write_inventory(project.scene.work, TILES[3], [])
    assert project.run(last=TILES[2]).success
    work = project.scene.work
    assert isinstance(work, CountingStore)
    work.reads.clear()

    checks = project.check()

    assert checks.keys() == ON_INVENTORY | ON_RESULTS | ON_FILE
    assert {name: plain(check)["tiles checked"] for name, check in checks.items()} == dict.fromkeys(
        ON_RESULTS | ON_FILE, 3
    ) | {"tile_has_chips": 4}
    assert [work.reads[results_key(tile, FINGERPRINT)] for tile in TILES[:3]] == [1] * 3
    assert [name for name, check in checks.items() if not check.passed] == ["tile_has_chips"]
    assert plain(checks["tile_has_chips"])["bad tiles"] == [{"tile": TILES[3], "fault": "has no chips"}]
    for check in checks.values():
        rows = plain(check)["not checked"]
        assert [row["tile"] for row in rows] == list(TILES[4:])
        assert f"tile {TILES[4]} has no inventory" in rows[0]["reason"]


def test_a_version_of_two_checkpoints_is_an_error_that_names_the_differing_tile(project: Project) -> None:
    other = replace(FINGERPRINT, checkpoint_sha256="d" * 64)
    for tile in TILES[:3]:
        finish(project.scene.stores, tile, MadeUp(fingerprint=other if tile == TILES[1] else FINGERPRINT))
        MadeUp().store(project.scene.stores, tile)

    checks = project.check(TILES[0], TILES[2])

    assert [name for name, check in checks.items() if not check.passed] == ["version_holds_one_model"]
    found = checks["version_holds_one_model"]
    assert (found.severity, found.description) == (dg.AssetCheckSeverity.ERROR, f"1 of 3 tiles: {TILES[1]}")
    usual, odd = (f"clay-v0-small mean {digit * 24}" for digit in "cd")
    fault = f"holds {odd}, most of these tiles {usual}"
    assert plain(found)["bad tiles"] == [{"tile": TILES[1], "fault": fault}]
    assert plain(found)["models"] == f"{usual}, {odd}"


def test_checks_launched_over_a_range_cover_the_range(project: Project) -> None:
    for tile in TILES[1:4]:
        finish(project.scene.stores, tile)

    checks = project.check(TILES[1], TILES[2])

    assert {plain(check)["tiles checked"] for check in checks.values()} == {2}


def test_missing_tiles_are_named_and_not_checked(project: Project) -> None:
    for tile in TILES[:2]:
        put_chips(project.scene.stores, tile, [1, 2])
        MadeUp().store(project.scene.stores, tile)
    (project.root / "work" / results_key(TILES[1], FINGERPRINT)).unlink()

    checks = project.check(TILES[0], TILES[1])

    assert all(check.passed for check in checks.values())
    lost = [{"tile": TILES[1], "reason": "has no results"}]
    unpublished = [{"tile": tile, "reason": "has no published file"} for tile in TILES[:2]]
    for name, check in checks.items():
        missing = lost if name in ON_RESULTS else unpublished if name in ON_FILE else None
        assert plain(check)["not checked"] == missing
        assert plain(check)["tiles checked"] == 2 - len(missing or ())


def test_the_version_in_the_run_config_is_checked(project: Project) -> None:
    finish(project.scene.stores, TILES[0])
    publish_tile(project.scene.work, project.scene.output, TILES[0], version=7, target=target_of())
    project.scene.output.write(f"{TILES[0]}_20200615_20200615_v007.gpq", b"damaged")

    usual = project.check(TILES[0])["file_readable_and_valid"]
    seventh = project.check(TILES[0], config={"version": 7})["file_readable_and_valid"]

    assert (usual.passed, seventh.passed) == (True, False)


def test_a_check_names_at_most_five_bad_tiles_in_its_description(
    project: Project,
) -> None:
    for tile in TILES:
        put_chips(project.scene.stores, tile, range(1, 21))
        MadeUp(vectors=two_equal_vectors).store(project.scene.stores, tile)

    found = project.check()["no_two_rows_alike"]

    assert found.description == f"6 of 6 tiles: {', '.join(TILES[:5])} …"
    assert len(plain(found)["bad tiles"]) == 6
    assert {check.name for check in CHECKS} == ON_INVENTORY | ON_RESULTS | ON_FILE
