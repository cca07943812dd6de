"""Faults and numbers that the checks report about a tile."""

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clay_assets.chips import MAX_NODATA
from clay_assets.publishing.versions import published_files
from clay_assets.quality.report import Report, check_file, check_inventory, check_results, combined
from clay_assets.quality.vectors import variety
from clay_assets.results import Target, results_key
from clay_assets.results.outcomes import Embedded, Outcome
from clay_assets.state import TileStores
from clay_assets.storage import Store, StoredObject
from clay_assets.tiles.inventory import list_chips, read_inventory, write_inventory
from clay_assets_tests.tile_scene import (
    FINGERPRINT,
    TILES,
    MadeUp,
    Vectors,
    clay_like,
    damage_pages,
    embedded_at_level,
    finish,
    footprint,
    put_chips,
)

TILE = TILES[0]
TINY = replace(FINGERPRINT, model="clay-v0-tiny")
CUSTOM = replace(FINGERPRINT, model="clay-v0-custom-64x2")
V15 = replace(FINGERPRINT, model="clay-v1.5-small", level="cls")
GROUP = embedded_at_level("group")
TARGET = Target((FINGERPRINT, TINY, CUSTOM, V15, GROUP), FINGERPRINT, max_nodata=MAX_NODATA)
"""Accepts results of any of these fingerprints."""

ACCOUNT, NUMBERS = "every_chip_accounted_for", "vectors_finite_and_of_the_right_width"
VALID, INSIDE = "file_readable_and_valid", "geometry_inside_the_tile"
ONE_MODEL = "version_holds_one_model"


class CountingStore(Store):
    """A store that records the keys opened and read."""

    def __init__(self, uri: Path) -> None:
        super().__init__(uri)
        self.read_keys: list[str] = []

    def open(self, target: StoredObject | str) -> BinaryIO:
        """As `Store`."""
        self._note(target)
        return super().open(target)

    def read(self, target: StoredObject | str) -> bytes:
        """As `Store`."""
        self._note(target)
        return super().read(target)

    def _note(self, target: StoredObject | str) -> None:
        url = target if isinstance(target, str) else target.url
        self.read_keys.append(url.removeprefix(f"{self.uri}/"))

    def take(self) -> list[str]:
        """Keys read since the last call."""
        keys, self.read_keys = self.read_keys, []
        return keys


@pytest.fixture
def stores(tmp_path: Path) -> TileStores:
    return TileStores(*(CountingStore(tmp_path / name) for name in ("chips", "work", "output")))


def results_of(stores: TileStores, tile: str = TILE, *, again: bool = False) -> Report:
    return check_results(stores.work, tile, read_inventory(stores.work, tile), TARGET, again=again)


def file_of(stores: TileStores, tile: str = TILE, *, again: bool = False) -> Report:
    files = published_files(stores.output, 1, tile).get(tile, [])
    return check_file(stores.work, stores.output, tile, files, again=again)


def test_a_chip_of_several_windows_counts_once(stores: TileStores) -> None:
    vectors = clay_like(12, dim=384).reshape(3, 4, 384)

    def cut(outcomes: list[Outcome]) -> list[Outcome]:
        return [
            replace(one, footprints=[*one.footprints] * 4, vectors=four, thumbnails=[*one.thumbnails] * 4)
            for one, four in zip(outcomes, vectors, strict=True)
            if isinstance(one, Embedded)
        ]

    put_chips(stores, TILE, range(3))
    MadeUp(V15, vectors=lambda count: clay_like(count, dim=384), alter=cut).store(stores, TILE)

    results = results_of(stores)

    assert results.faults == {}
    assert results.numbers[ACCOUNT] == {"chips": 3, "embedded": 3, "skipped": 0}


def test_a_good_tile_has_no_faults_and_its_numbers_are_those_of_its_vectors(stores: TileStores) -> None:
    finish(stores, TILE, MadeUp(skipped=1), chips=20)

    results, file = results_of(stores), file_of(stores)

    assert (results.faults, file.faults) == ({}, {})
    assert results.numbers[ACCOUNT] == {"chips": 20, "embedded": 19, "skipped": 1}
    vectors = clay_like(20)[1:]
    norms = np.linalg.norm(vectors, axis=1)
    assert results.numbers["norms_plausible"] == {
        "smallest norm": pytest.approx(norms.min(), abs=1e-4),
        "median norm": pytest.approx(np.median(norms), abs=1e-4),
        "largest norm": pytest.approx(norms.max(), abs=1e-4),
    }
    assert results.numbers[NUMBERS] == {"vectors": 19, "vectors checked": 19, "shapes": "768"}
    assert results.numbers["no_two_rows_alike"] == {"vectors checked": 19, "duplicate vectors": 0}
    units = vectors / norms[:, None]
    cosine = np.median((units @ units.T)[np.triu_indices(19, 1)])
    assert results.numbers["not_collapsed"]["largest median cosine"] == pytest.approx(cosine, abs=1e-5)
    assert results.numbers["not_collapsed"]["tiles compared"] == 1
    assert file.numbers[VALID] == {"rows": 19, "bytes": stores.output.list()[0].size}
    assert file.numbers[INSIDE] == {"footprints": 19, "furthest out of a tile, m": 0}
    assert file.numbers[ONE_MODEL] == {"models": f"clay-v0-small mean {'c' * 24}"}


def test_numbers_of_many_tiles_are_summed_or_reduced_to_extremes() -> None:
    def report(tile: str, norm: float, chips: int) -> Report:
        return Report(
            tile,
            numbers={"check": {"smallest norm": norm, "largest norm": norm, "chips": chips, "shapes": "768"}},
        )

    assert combined([report("27WXM", 2.0, 3), report("27WXN", 1.5, 4), Report("27WXP")], "check") == {
        "smallest norm": 1.5,
        "largest norm": 2.0,
        "chips": 7,
        "shapes": "768",
    }


def nan_in_the_third(count: int) -> Vectors:
    vectors = clay_like(count)
    vectors[2, 5] = np.nan
    return vectors


def one_ten_times_as_long(count: int) -> Vectors:
    return clay_like(count) * np.where(np.arange(count) == 4, 10, 1).astype(np.float32)[:, None]


def two_equal_vectors(count: int) -> Vectors:
    vectors = clay_like(count)
    vectors[7] = vectors[3]
    return vectors


def equal_but_for_rounding(count: int) -> Vectors:
    return clay_like(1) * (1 + 1e-4 * np.random.default_rng(1).standard_normal((count, 768))).astype(
        np.float32
    )


def along_one_line(count: int) -> Vectors:
    common, direction = clay_like(2, seed=5)
    return (common + np.linspace(-1, 1, count)[:, None] * direction).astype(np.float32)


def drop_the_last(outcomes: list[Outcome]) -> list[Outcome]:
    return outcomes[:-1]


def the_first_instead_of_the_last(outcomes: list[Outcome]) -> list[Outcome]:
    return [*outcomes[:-1], replace(outcomes[-1], chip=outcomes[0].chip)]


@pytest.mark.parametrize(
    ("made_up", "check", "fault"),
    [
        (MadeUp(alter=drop_the_last), ACCOUNT, "19 embedded . 0 skipped, 20 in the inventory"),
        (MadeUp(alter=the_first_instead_of_the_last), ACCOUNT, "20 in the inventory, but .* occur twice"),
        (MadeUp(vectors=nan_in_the_third), NUMBERS, "1 vectors with NaN .*_0003.tif"),
        (MadeUp(fingerprint=TINY), NUMBERS, r"shape \(768,\), expected \(256,\)"),
        (MadeUp(fingerprint=CUSTOM), NUMBERS, r"shape \(768,\), expected \(64,\)"),
        (MadeUp(fingerprint=V15), NUMBERS, r"shape \(768,\), expected \(384,\)"),
        (MadeUp(vectors=one_ten_times_as_long), "norms_plausible", "1 norms from .* expected .*median 2"),
        (MadeUp(vectors=lambda n: 0 * clay_like(n)), "norms_plausible", "20 norms from 0 to 0"),
        (MadeUp(vectors=lambda n: 1000 * clay_like(n)), "norms_plausible", "20 norms .* expected .* to 100"),
        (
            MadeUp(vectors=two_equal_vectors),
            "no_two_rows_alike",
            "1 duplicate vectors, such as that of .*_0008.tif",
        ),
        (MadeUp(vectors=equal_but_for_rounding), "not_collapsed", "median cosine 1.0000"),
        (MadeUp(vectors=along_one_line), "not_collapsed", "effective rank 1.0"),
    ],
)
def test_a_fault_is_reported_by_its_check(
    stores: TileStores, made_up: MadeUp, check: str, fault: str
) -> None:
    put_chips(stores, TILE, range(1, 21))
    made_up.store(stores, TILE)

    assert re.search(fault, results_of(stores).faults[check])


@pytest.mark.parametrize(
    ("reasons", "count"),
    [
        ([None, "corrupt", None, None], "3 embedded . 1 skipped, 4 in the inventory, but 2 rows"),
        ([None, None, None, None], "4 embedded . 0 skipped, 4 in the inventory, but 1 rows"),
    ],
    ids=["next to a vector with a reason", "alone"],
)
def test_a_row_with_neither_a_vector_nor_a_reason_is_not_accounted_for(
    stores: TileStores, reasons: list[str | None], count: str
) -> None:
    put_chips(stores, TILE, range(1, 5))
    MadeUp(skipped=1).store(stores, TILE)
    path = stores.work.url(results_key(TILE, FINGERPRINT))
    metadata, table = pq.read_metadata(path).metadata, pq.read_table(path, partitioning=None)
    assert table["reason"].to_pylist() == ["corrupt", None, None, None]
    column = table.schema.get_field_index("reason")
    table = table.set_column(column, table.schema.field("reason"), pa.array(reasons, pa.string()))
    ours = {name: value for name, value in metadata.items() if name.startswith(b"clay:")}
    pq.write_table(table.replace_schema_metadata(ours), path)

    assert re.search(
        rf"{count} with neither .*, the first of .*_0001.tif", results_of(stores).faults[ACCOUNT]
    )


def test_a_row_group_without_rows_is_not_a_fault(stores: TileStores) -> None:
    finish(stores, TILE, chips=4)
    path = stores.work.url(results_key(TILE, FINGERPRINT))
    metadata, table = pq.read_metadata(path).metadata, pq.read_table(path, partitioning=None)
    ours = {name: value for name, value in metadata.items() if name.startswith(b"clay:")}
    table = table.replace_schema_metadata(ours)
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table[:0])
        writer.write_table(table)

    assert pq.read_metadata(path).num_row_groups == 2
    assert results_of(stores).faults == {}


def test_chips_that_changed_since_they_were_embedded_are_not_accounted_for(stores: TileStores) -> None:
    finish(stores, TILE, chips=4)
    assert results_of(stores).faults == {}
    put_chips(stores, TILE, [2], content=b"processed once more")
    write_inventory(stores.work, TILE, list_chips(stores.chips, TILE).chips)

    assert "but some are other chips, have changed" in results_of(stores).faults[ACCOUNT]


def test_a_duplicate_outcome_is_reported(stores: TileStores) -> None:
    def double(outcomes: list[Outcome]) -> list[Outcome]:
        first = outcomes[0]
        assert isinstance(first, Embedded)
        return [*outcomes, replace(first)]

    put_chips(stores, TILE, range(1, 4))
    MadeUp(alter=double).store(stores, TILE)

    faults = results_of(stores).faults
    assert "4 embedded" in faults[ACCOUNT]
    assert "no_two_rows_alike" in faults


def test_a_skipped_chip_has_no_vector_to_check(stores: TileStores) -> None:
    put_chips(stores, TILE, range(1, 4))
    MadeUp(skipped=3).store(stores, TILE)

    report = results_of(stores)

    assert report.faults == {}
    assert report.numbers[ACCOUNT]["skipped"] == 3
    assert report.numbers[NUMBERS]["vectors checked"] == 0
    assert report.numbers["norms_plausible"] == {}


@pytest.mark.parametrize("column", ["source_url", "embeddings"])
def test_damaged_results_are_reported_and_not_checked(stores: TileStores, column: str) -> None:
    finish(stores, TILE)
    damage_pages(stores.work, TILE, column)

    report = results_of(stores)

    assert report.faults == {ACCOUNT: "has damaged results: embed it again with force"}
    assert report.missing == report.faults[ACCOUNT]


def test_a_tile_of_few_chips_is_not_checked_for_variety(stores: TileStores) -> None:
    put_chips(stores, TILE, range(1, 16))
    MadeUp(vectors=equal_but_for_rounding).store(stores, TILE)

    report = results_of(stores)

    assert "not_collapsed" not in report.faults
    assert report.numbers["not_collapsed"]["tiles with too few chips to compare"] == 1


def test_a_tile_at_level_group_is_sampled_and_checked_like_one_at_level_mean(
    stores: TileStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spread(count: int) -> Vectors:
        noise = np.random.default_rng(0).standard_normal((count, 6, 16, 16, 768), dtype=np.float32)
        return clay_like(count)[:, None, None, None] + 0.1 * noise

    monkeypatch.setattr("clay_assets.quality.vectors.MAX_BYTES", 20 * 2**20)
    put_chips(stores, TILE, range(1, 8))
    MadeUp(fingerprint=GROUP, vectors=spread).store(stores, TILE)

    report = results_of(stores)

    # Three chips a row group: 33 MB of vectors in groups of 3, 3 and 1, of which every second is read.
    assert report.numbers[NUMBERS]["vectors checked"] == 4
    assert report.numbers[NUMBERS]["shapes"] == "6 x 16 x 16 x 768"
    assert report.numbers["norms_plausible"]["median norm"] == pytest.approx(2, rel=0.05)
    assert report.faults == {}


def test_missing_results_and_files_are_reported_and_not_checked(stores: TileStores) -> None:
    put_chips(stores, TILE, [1])
    write_inventory(stores.work, TILE, list_chips(stores.chips, TILE).chips)

    assert results_of(stores) == Report(TILE, missing="has no results")
    assert file_of(stores) == Report(TILE, missing="has no published file")


def test_an_inventory_without_chips_is_a_fault() -> None:
    assert check_inventory(TILE, []).faults == {"tile_has_chips": "has no chips"}
    assert check_inventory(TILE, [StoredObject("a.tif", 1, "etag")]).faults == {}


def test_an_unchanged_tile_keeps_its_report_and_a_changed_one_is_read_again(
    stores: TileStores,
) -> None:
    work, output = stores.work, stores.output
    assert isinstance(work, CountingStore)
    assert isinstance(output, CountingStore)
    finish(stores, TILE)
    first = results_of(stores), file_of(stores)
    work.take(), output.take()

    assert (results_of(stores), file_of(stores)) == first
    stored = [f"chip_inventory/{TILE}.parquet", f"checks/{TILE}.results.json", f"checks/{TILE}.file.json"]
    assert (work.take(), output.take()) == (stored, [])

    assert (results_of(stores, again=True), file_of(stores, again=True)) == first
    assert results_key(TILE, FINGERPRINT) in work.take()
    assert len(output.take()) == 1

    MadeUp(vectors=nan_in_the_third).store(stores, TILE)
    assert "1 vectors with NaN" in results_of(stores).faults[NUMBERS]
    assert results_key(TILE, FINGERPRINT) in work.take()


@pytest.mark.parametrize("report", [b"", b"[]", b'{"tile": "27WXM", "unknown": 1}'])
def test_an_unreadable_report_is_recreated(stores: TileStores, report: bytes) -> None:
    finish(stores, TILE)
    stores.work.write(f"checks/{TILE}.results.json", report)

    assert results_of(stores).numbers[ACCOUNT] == {"chips": 3, "embedded": 3, "skipped": 0}


def test_a_report_of_another_version_is_recreated(
    stores: TileStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(stores, TILE)
    results_of(stores)
    stores.work.take()  # type: ignore[attr-defined]
    monkeypatch.setattr("clay_assets.quality.report.REPORT_VERSION", 99)

    results_of(stores)

    assert results_key(TILE, FINGERPRINT) in stores.work.take()  # type: ignore[attr-defined]


def test_a_damaged_published_file_is_found(stores: TileStores) -> None:
    finish(stores, TILE)
    (file,) = stores.output.list()
    stores.output.write(Path(file.url).name, stores.output.read(file)[:-100])

    report = file_of(stores)

    assert "can't be read as Parquet" in report.faults[VALID]
    assert INSIDE not in report.faults


def an_open_ring(geometry: pa.ChunkedArray) -> pa.Array:
    wkb = geometry.to_pylist()
    wkb[1] = wkb[1][:-16] + struct.pack("<2d", 0, 0)  # the last corner is not the first
    return pa.array(wkb, pa.binary())


@pytest.mark.parametrize(
    ("replaced", "fault", "footprints"),
    [
        (an_open_ring, "1 row.s. with a geometry that is not the WKB of a 2-D polygon", 2),
        (lambda geometry: pa.array(range(len(geometry))), "Column geometry has type int64", 0),
    ],
    ids=["an open ring", "a column of integers"],
)
def test_an_invalid_geometry_is_a_fault_of_the_file(
    stores: TileStores, replaced: Callable[[pa.ChunkedArray], pa.Array], fault: str, footprints: int
) -> None:
    finish(stores, TILE)
    path = stores.output.list()[0].url
    table = pq.read_table(path)
    table = table.set_column(
        table.schema.get_field_index("geometry"), "geometry", replaced(table["geometry"])
    )
    pq.write_table(table, path, compression="zstd")

    report = file_of(stores)

    assert list(report.faults) == [VALID]
    assert re.search(fault, report.faults[VALID])
    assert report.numbers[INSIDE]["footprints"] == footprints


def test_a_model_that_is_not_utf8_does_not_hide_footprints_outside(stores: TileStores) -> None:
    finish(stores, TILE)
    (file,) = stores.output.list()
    table = pq.read_table(file.url)
    elsewhere = Path(file.url).with_name(Path(file.url).name.replace(TILE, "33UUP"))
    metadata = table.schema.metadata | {b"clay:model": b"\xff"}
    pq.write_table(table.replace_schema_metadata(metadata), elsewhere, compression="zstd")

    report = file_of(stores, "33UUP")

    assert "is not UTF-8" in report.faults[VALID]
    assert report.faults[INSIDE].startswith("3 of 3 footprints outside")


def test_a_code_that_names_no_tile_is_a_fault(stores: TileStores) -> None:
    # Zone 1 has no column X; the manifest does not check that.
    finish(stores, "01WXA")

    assert file_of(stores, "01WXA").faults == {
        INSIDE: "01WXA names no tile: zone 1 has the columns ABCDEFGH, got X"
    }


def test_two_files_of_one_version_are_a_fault_even_if_one_has_a_report(stores: TileStores) -> None:
    finish(stores, TILE)
    assert file_of(stores).faults == {}
    (file,) = stores.output.list()
    stores.output.write(f"{TILE}_20190101_20200615_v001.gpq", stores.output.read(file))

    assert "2 files of one version: expected one" in file_of(stores).faults[VALID]
    stores.output.delete(f"{TILE}_20190101_20200615_v001.gpq")
    assert file_of(stores).faults == {}


def test_a_footprint_of_another_tile_is_outside(stores: TileStores) -> None:
    def misplaced(tile: str, number: int) -> bytes:
        return footprint("27WXM" if number == 2 else tile, number)

    finish(stores, "27WXN", MadeUp(place=misplaced))

    assert file_of(stores, "27WXN").faults == {INSIDE: "1 of 3 footprints outside, the furthest by 90.2 km"}


def test_variety_of_many_chips_is_measured_on_an_even_sample() -> None:
    vectors = clay_like(1000)
    cosine, rank = variety(vectors)
    picked = vectors[np.linspace(0, 999, 128).round().astype(int)].astype(float)
    units = picked / np.linalg.norm(picked, axis=1)[:, None]
    singular = np.linalg.svd(picked - picked.mean(axis=0), compute_uv=False)
    shares = singular[singular > 1e-9] / singular.sum()
    assert cosine == pytest.approx(np.median((units @ units.T)[np.triu_indices(128, 1)]))
    assert rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)
