import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clay_assets.dagster.checks import build_checks
from clay_assets.dagster.embeddings_geoparquet import PublishConfig
from clay_assets.dagster.embeddings_geoparquet_checks import look_at_file
from clay_assets.dagster.object_store import ObjectStore
from clay_assets.publishing.publish import publish_tile
from clay_assets.quality.vectors import variety
from clay_assets.results import results_key
from clay_assets.results.outcomes import Embedded, Outcome, Skipped
from clay_assets.state import TileStores
from clay_assets.storage import Store
from clay_assets.tiles.inventory import list_chips, write_inventory
from clay_assets_tests.tile_scene import (
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

VECTOR_CHECKS = {
    "every_chip_accounted_for",
    "vectors_finite_and_of_the_right_width",
    "norms_plausible",
    "no_two_rows_alike",
    "not_collapsed",
}
FILE_CHECKS = {"file_readable_and_valid", "geometry_inside_the_tile"}


@pytest.fixture
def stores(tmp_path: Path) -> TileStores:
    return TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))


@pytest.fixture
def run(stores: TileStores) -> Callable[..., dg.ExecuteInProcessResult]:
    """Runs the checks over a range of tiles, behind assets that have nothing left to do."""
    tiles = dg.StaticPartitionsDefinition(list(TILES))

    @dg.asset(name="chip_embeddings", partitions_def=tiles, backfill_policy=dg.BackfillPolicy.single_run())
    def embeddings() -> None: ...

    @dg.asset(
        name="embeddings_geoparquet",
        deps=[embeddings],
        partitions_def=tiles,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def published(config: PublishConfig) -> None: ...

    def run(
        first: str = TILES[0], last: str = TILES[2], run_config: Mapping[str, Any] | None = None
    ) -> dg.ExecuteInProcessResult:
        with dg.DagsterInstance.ephemeral() as instance:
            return dg.materialize(
                [embeddings, published, *build_checks(TILES, version=1)],
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": first,
                    "dagster/asset_partition_range_end": last,
                },
                resources={name: ObjectStore(uri=getattr(stores, name).uri) for name in ("work", "output")},
                raise_on_error=False,
                run_config=run_config,
            )

    return run


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def plain(check: dg.AssetCheckEvaluation) -> dict[str, Any]:
    """A check's metadata, tables as dictionaries."""
    values: dict[str, Any] = {}
    for name, entry in check.metadata.items():
        is_table = isinstance(entry, dg.TableMetadataValue)
        values[name] = [dict(row.data) for row in entry.records] if is_table else entry.value  # type: ignore[attr-defined]
    return values


def faults(check: dg.AssetCheckEvaluation) -> Mapping[str, str]:
    return {row["tile"]: row["fault"] for row in plain(check)["bad tiles"] or ()}


def test_good_tiles_pass_every_check_and_the_numbers_are_told(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    for tile in TILES[:3]:
        finish(stores, tile, MadeUp(skipped=1), chips=20)

    result = run()

    checks = checks_of(result)
    assert checks.keys() == VECTOR_CHECKS | FILE_CHECKS
    assert [name for name, check in checks.items() if not check.passed] == []
    assert {check.description for check in checks.values()} == {"3 tiles are in order"}
    numbers = {name: plain(check) for name, check in checks.items()}
    counts = {"tiles looked at": 3, "chips": 60, "embedded": 57, "skipped": 3}
    assert numbers["every_chip_accounted_for"] == {**counts, "bad tiles": None, "not looked at": None}
    vectors = clay_like(20)[1:]
    norms = np.linalg.norm(vectors, axis=1)
    assert numbers["norms_plausible"]["smallest norm"] == pytest.approx(norms.min(), abs=1e-4)
    assert numbers["norms_plausible"]["median norm"] == pytest.approx(np.median(norms), abs=1e-4)
    assert numbers["norms_plausible"]["largest norm"] == pytest.approx(norms.max(), abs=1e-4)
    assert numbers["vectors_finite_and_of_the_right_width"]["vectors looked at"] == 57
    assert numbers["vectors_finite_and_of_the_right_width"]["shapes"] == "768"
    units = vectors / norms[:, None]
    cosine = np.median((units @ units.T)[np.triu_indices(19, 1)])
    assert numbers["not_collapsed"]["largest median cosine"] == pytest.approx(cosine, abs=1e-5)
    assert numbers["not_collapsed"]["tiles compared"] == 3
    assert numbers["file_readable_and_valid"]["rows"] == 57
    assert numbers["geometry_inside_the_tile"]["footprints"] == 57
    assert numbers["geometry_inside_the_tile"]["furthest out of a tile, m"] == 0


def nan_in_the_third(count: int) -> Vectors:
    vectors = clay_like(count)
    vectors[2, 5] = np.nan
    return vectors


def one_ten_times_as_long(count: int) -> Vectors:
    return clay_like(count) * np.where(np.arange(count) == 4, 10, 1).astype(np.float32)[:, None]


def two_alike(count: int) -> Vectors:
    vectors = clay_like(count)
    vectors[7] = vectors[3]
    return vectors


def all_alike_but_for_rounding(count: int) -> Vectors:
    return clay_like(1) * (1 + 1e-4 * np.random.default_rng(1).standard_normal((count, 768))).astype(
        np.float32
    )


def along_one_line(count: int) -> Vectors:
    common, direction = clay_like(2, seed=5)
    return (common + np.linspace(-1, 1, count)[:, None] * direction).astype(np.float32)


def drop_the_last(outcomes: list[Outcome]) -> list[Outcome]:
    return outcomes[:-1]


def the_first_in_place_of_the_last(outcomes: list[Outcome]) -> list[Outcome]:
    return [*outcomes[:-1], replace(outcomes[-1], chip=outcomes[0].chip)]


def without_its_reason(outcomes: list[Outcome]) -> list[Outcome]:
    return [
        Skipped(outcome.chip, None, "")  # type: ignore[arg-type]
        if isinstance(outcome, Skipped)
        else outcome
        for outcome in outcomes
    ]


ACCOUNT, NUMBERS = "every_chip_accounted_for", "vectors_finite_and_of_the_right_width"


@pytest.mark.parametrize(
    ("made_up", "check", "fault"),
    [
        (MadeUp(alter=drop_the_last), ACCOUNT, "19 embedded . 0 skipped, 20 in the inventory"),
        (MadeUp(alter=the_first_in_place_of_the_last), ACCOUNT, "20 in the inventory, but .* one twice"),
        (MadeUp(skipped=1, alter=without_its_reason), ACCOUNT, "19 embedded . 0 skipped, 20 in the inv"),
        (MadeUp(vectors=nan_in_the_third), NUMBERS, "1 vectors with NaN .*_0003.tif"),
        (MadeUp(model="clay-v0-tiny"), NUMBERS, r"shape \(768,\), expected \(256,\)"),
        (MadeUp(vectors=one_ten_times_as_long), "norms_plausible", "1 norms from .* expected .*median 2"),
        (MadeUp(vectors=lambda n: 0 * clay_like(n)), "norms_plausible", "20 norms from 0 to 0"),
        (MadeUp(vectors=lambda n: 1000 * clay_like(n)), "norms_plausible", "20 norms .* expected .* to 100"),
        (MadeUp(vectors=two_alike), "no_two_rows_alike", "1 vectors twice, such as that of .*_0008.tif"),
        (MadeUp(vectors=all_alike_but_for_rounding), "not_collapsed", "median cosine 1.0000"),
        (MadeUp(vectors=along_one_line), "not_collapsed", "effective rank 1.0"),
    ],
)
def test_a_bad_tile_is_named_with_its_fault_and_the_good_ones_are_not(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult], made_up: MadeUp, check: str, fault: str
) -> None:
    finish(stores, TILES[0], chips=20)
    put_chips(stores, TILES[1], range(1, 21))
    made_up.store(stores, TILES[1])

    found = checks_of(run(TILES[0], TILES[1]))[check]

    assert not found.passed
    assert found.description == f"1 of 2 tiles: {TILES[1]}"
    assert list(faults(found)) == [TILES[1]]
    assert re.search(fault, faults(found)[TILES[1]])


def test_a_vector_with_a_reason_does_not_make_up_for_a_row_with_neither(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    put_chips(stores, TILES[0], range(1, 5))
    MadeUp(skipped=1).store(stores, TILES[0])
    path = stores.work.url(results_key(TILES[0]))
    metadata, table = pq.read_metadata(path).metadata, pq.read_table(path)
    first, second, *others = table["reason"].to_pylist()
    reasons = pa.array([second, first, *others])
    table = table.set_column(table.schema.get_field_index("reason"), table.schema.field("reason"), reasons)
    ours = {name: value for name, value in metadata.items() if name.startswith(b"clay:")}
    pq.write_table(table.replace_schema_metadata(ours), path)

    check = checks_of(run(TILES[0], TILES[0]))["every_chip_accounted_for"]

    assert re.search(
        r"3 embedded . 1 skipped, 4 in the inventory, but 2 rows with neither .*, the first of .*_0001.tif",
        faults(check)[TILES[0]],
    )


def test_chips_that_changed_since_they_were_embedded_are_not_accounted_for(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    finish(stores, TILES[0], chips=4)
    put_chips(stores, TILES[0], [2], content=b"processed once more")
    write_inventory(stores.work, TILES[0], list_chips(stores.chips, TILES[0]).chips)
    check = checks_of(run(TILES[0], TILES[0]))["every_chip_accounted_for"]
    assert "but other chips, or in another state" in faults(check)[TILES[0]]


def test_no_check_holds_up_publishing(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    put_chips(stores, TILES[0], range(1, 21))
    MadeUp(vectors=nan_in_the_third).store(stores, TILES[0])
    result = run(TILES[0], TILES[0])
    severities = {name: check.severity for name, check in checks_of(result).items()}
    warn, error = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
    assert severities == dict.fromkeys(VECTOR_CHECKS | FILE_CHECKS, error) | dict.fromkeys(
        ("norms_plausible", "no_two_rows_alike", "not_collapsed"), warn
    )
    assert result.success
    assert result.asset_materializations_for_node("embeddings_geoparquet")

    MadeUp(alter=drop_the_last).store(stores, TILES[0])
    unaccounted = run(TILES[0], TILES[0])
    assert not checks_of(unaccounted)["every_chip_accounted_for"].passed
    assert unaccounted.asset_materializations_for_node("embeddings_geoparquet")


def test_tiles_that_the_assets_failed_on_are_named_and_not_judged(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    finish(stores, TILES[1])
    checks = checks_of(run())
    assert all(check.passed for check in checks.values())
    for name, check in checks.items():
        reason = "has no results" if name in VECTOR_CHECKS else "has no published file"
        assert plain(check)["not looked at"] == [
            {"tile": tile, "reason": reason} for tile in (TILES[0], TILES[2])
        ]
        assert plain(check)["tiles looked at"] == 1


@pytest.mark.parametrize("column", ["source_url", "embeddings"])
def test_damaged_results_are_named_and_leave_the_other_tiles_judged(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult], column: str
) -> None:
    finish(stores, TILES[0])
    finish(stores, TILES[1])
    damage_pages(stores.work, TILES[0], column)

    checks = checks_of(run(TILES[0], TILES[1]))

    assert {name for name in VECTOR_CHECKS if not checks[name].passed} == {ACCOUNT}
    assert faults(checks[ACCOUNT]) == {TILES[0]: "has damaged results: embed it again with force"}
    assert {plain(checks[name])["tiles looked at"] for name in VECTOR_CHECKS} == {1}


def test_a_tile_of_few_chips_is_not_judged_for_variety(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    put_chips(stores, TILES[0], range(1, 16))
    MadeUp(vectors=all_alike_but_for_rounding).store(stores, TILES[0])
    check = checks_of(run(TILES[0], TILES[0]))["not_collapsed"]
    assert check.passed
    assert plain(check)["tiles with too few chips to compare"] == 1


def test_a_tile_at_level_group_is_sampled_and_judged_like_one_at_level_mean(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spread(count: int) -> Vectors:
        noise = np.random.default_rng(0).standard_normal((count, 6, 16, 16, 768), dtype=np.float32)
        return clay_like(count)[:, None, None, None] + 0.1 * noise

    monkeypatch.setattr("clay_assets.quality.vectors.MAX_BYTES", 20 * 2**20)
    put_chips(stores, TILES[0], range(1, 8))
    MadeUp(fingerprint=embedded_at_level("group"), vectors=spread).store(stores, TILES[0])
    checks = checks_of(run(TILES[0], TILES[0]))
    # Three chips a row group: 33 MB of vectors in groups of 3, 3 and 1, of which every second is read.
    assert plain(checks["vectors_finite_and_of_the_right_width"])["vectors looked at"] == 4
    assert plain(checks["vectors_finite_and_of_the_right_width"])["shapes"] == "6 x 16 x 16 x 768"
    assert plain(checks["norms_plausible"])["median norm"] == pytest.approx(2, rel=0.05)
    assert all(checks[name].passed for name in VECTOR_CHECKS)


def test_checks_launched_without_a_run_of_tiles_look_at_the_whole_manifest(stores: TileStores) -> None:
    finish(stores, TILES[3])
    checks = build_checks(TILES, version=1)
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(*checks))
    definitions = dg.Definitions(
        assets=[dg.AssetSpec("chip_embeddings"), dg.AssetSpec("embeddings_geoparquet")],
        asset_checks=checks,
        jobs=[job],
        resources={name: ObjectStore(uri=getattr(stores, name).uri) for name in ("work", "output")},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        found = checks_of(definitions.resolve_job_def("checks").execute_in_process(instance=instance))
    assert {plain(check)["tiles looked at"] for check in found.values()} == {1}
    assert {len(plain(check)["not looked at"]) for check in found.values()} == {5}


def test_a_damaged_published_file_is_found(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    finish(stores, TILES[0])
    (file,) = stores.output.list()
    name = Path(file.url).name
    stores.output.write(name, stores.output.read(file)[:-100])
    checks = checks_of(run(TILES[0], TILES[0]))
    assert "can't be read as Parquet" in faults(checks["file_readable_and_valid"])[TILES[0]]
    assert checks["geometry_inside_the_tile"].passed


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
def test_a_geometry_that_is_none_names_its_file_and_leaves_the_other_tiles_judged(
    stores: TileStores,
    run: Callable[..., dg.ExecuteInProcessResult],
    replaced: Callable[[pa.ChunkedArray], pa.Array],
    fault: str,
    footprints: int,
) -> None:
    finish(stores, TILES[0])
    finish(stores, TILES[1])
    path = stores.output.list()[0].url
    table = pq.read_table(path)
    index = table.schema.get_field_index("geometry")
    table = table.set_column(index, "geometry", replaced(table["geometry"]))
    pq.write_table(table, path, compression="zstd")

    checks = checks_of(run(TILES[0], TILES[1]))

    assert list(faults(checks["file_readable_and_valid"])) == [TILES[0]]
    assert re.search(fault, faults(checks["file_readable_and_valid"])[TILES[0]])
    assert checks["geometry_inside_the_tile"].passed
    assert plain(checks["geometry_inside_the_tile"])["footprints"] == footprints + 3


def test_a_code_of_no_tile_on_earth_is_a_fault_and_no_crash(stores: TileStores) -> None:
    # X is no column of zone 1; the manifest cannot tell.
    finish(stores, "01WXA")
    facts = look_at_file(stores.output, "01WXA", stores.output.list())
    assert facts.outside == facts.rows == 3
    assert facts.lost == "01WXA names no tile: zone 1 has the columns ABCDEFGH, got X"


def test_two_files_of_one_version_are_a_fault(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    finish(stores, TILES[0])
    (file,) = stores.output.list()
    stores.output.write(f"{TILES[0]}_20190101_20200615_v001.gpq", stores.output.read(file))
    check = checks_of(run(TILES[0], TILES[0]))["file_readable_and_valid"]
    assert "2 files of one version: expected one" in faults(check)[TILES[0]]


def test_the_version_that_a_run_asked_for_is_looked_at(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    finish(stores, TILES[0])
    publish_tile(stores.work, stores.output, TILES[0], version=7)
    stores.output.write(f"{TILES[0]}_20200615_20200615_v007.gpq", b"damaged")
    usual = checks_of(run(TILES[0], TILES[0]))["file_readable_and_valid"]
    asked = {"ops": {"embeddings_geoparquet": {"config": {"version": 7}}}}
    seventh = checks_of(run(TILES[0], TILES[0], run_config=asked))["file_readable_and_valid"]
    assert (usual.passed, seventh.passed) == (True, False)


def test_a_footprint_of_another_tile_is_outside(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    def misplaced(tile: str, number: int) -> bytes:
        return footprint("27WXM" if number == 2 else tile, number)

    finish(stores, TILES[1], MadeUp(place=misplaced))
    check = checks_of(run(TILES[1], TILES[1]))["geometry_inside_the_tile"]
    assert faults(check) == {TILES[1]: "1 of 3 footprints outside, the furthest by 90.2 km"}


def test_variety_of_many_chips_is_that_of_some_spread_evenly() -> None:
    vectors = clay_like(1000)
    cosine, rank = variety(vectors)
    picked = vectors[np.linspace(0, 999, 128).round().astype(int)].astype(float)
    units = picked / np.linalg.norm(picked, axis=1)[:, None]
    singular = np.linalg.svd(picked - picked.mean(axis=0), compute_uv=False)
    shares = singular[singular > 1e-9] / singular.sum()
    assert cosine == pytest.approx(np.median((units @ units.T)[np.triu_indices(128, 1)]))
    assert rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)
    assert variety(vectors[:1]) == (None, None)


def test_a_skipped_chip_has_no_vector_to_judge(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    put_chips(stores, TILES[0], range(1, 4))
    MadeUp(skipped=3).store(stores, TILES[0])
    checks = checks_of(run(TILES[0], TILES[0]))
    assert all(checks[name].passed for name in VECTOR_CHECKS)
    assert plain(checks["every_chip_accounted_for"])["skipped"] == 3
    assert plain(checks["vectors_finite_and_of_the_right_width"])["vectors looked at"] == 0
    assert "median norm" not in plain(checks["norms_plausible"])


def test_an_outcome_twice_is_neither_hidden_nor_counted_once(
    stores: TileStores, run: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    def double(outcomes: list[Outcome]) -> list[Outcome]:
        first = outcomes[0]
        assert isinstance(first, Embedded)
        return [*outcomes, replace(first)]

    put_chips(stores, TILES[0], range(1, 4))
    MadeUp(alter=double).store(stores, TILES[0])
    checks = checks_of(run(TILES[0], TILES[0]))
    assert "4 embedded" in faults(checks["every_chip_accounted_for"])[TILES[0]]
    assert not checks["no_two_rows_alike"].passed
