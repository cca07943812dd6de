"""The published file, as pyarrow, geopandas and DuckDB read it, and what the writer refuses."""

import gc
import io
import json
import math
import struct
import weakref
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.dataset as dataset
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

from clay_assets.chips.geotiff import read_header
from clay_assets.chips.place import locate
from clay_assets.publishing.rows import RowsRefusedError
from clay_assets.publishing.schema import (
    PublishedName,
    parse_published_name,
    published_schema,
    read_provenance,
)
from clay_assets.publishing.validation import validate
from clay_assets.publishing.writer import ROW_GROUP_BYTES, write_geoparquet
from clay_assets_tests.geotiffs import chip_bytes, chip_pixels
from clay_assets_tests.publishing.geoparquet_rows import (
    DATES,
    PROVENANCE,
    footprints,
    rows,
    urls,
    vectors,
    with_column,
)

MEAN, PATCH, GROUP = (768,), (16, 16, 768), (6, 16, 16, 768)
SCHEMA = Path(__file__).parent.parent / "schemas" / "geoparquet-v1.0.0.json"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten rows at level mean, five of each date."""
    path = tmp_path_factory.mktemp("published") / "27WXN_20200615_20210703_v001.gpq"
    write_geoparquet(path, [rows(10)], MEAN, PROVENANCE)
    return path


def geometry_entry(path: Path) -> dict[str, object]:
    entry: dict[str, object] = json.loads(pq.read_metadata(path).metadata[b"geo"])["columns"]["geometry"]
    return entry


# Reading


@pytest.mark.parametrize("shape", [MEAN, PATCH, GROUP])
def test_pyarrow_reads_back_the_tensor_type_and_every_value(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "file.gpq"
    write_geoparquet(path, [rows(3, shape)], shape, PROVENANCE)

    table = pq.read_table(path)

    # The four documented columns; Clay's own files carry a fifth, `index`, and lists, by accident of pandas.
    assert [(column.name, column.type) for column in table.schema] == [
        ("source_url", pa.string()),
        ("date", pa.date32()),
        ("embeddings", pa.fixed_shape_tensor(pa.float32(), shape)),
        ("geometry", pa.binary()),
    ]
    tensors = table["embeddings"].combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(tensors, vectors(3, shape).reshape(3, *shape))
    assert table["source_url"].to_pylist() == urls(3)
    assert table["date"].to_pylist() == [DATES[0], DATES[0], DATES[1]]


def test_geopandas_reads_the_same_rows_in_crs84(published: Path) -> None:
    frame = geopandas.read_parquet(published)

    assert list(frame.columns) == ["source_url", "date", "embeddings", "geometry"]
    np.testing.assert_array_equal(np.stack(frame["embeddings"].tolist()), vectors(10, MEAN))
    assert frame["source_url"].tolist() == urls(10)
    assert frame["date"].tolist() == [DATES[0]] * 5 + [DATES[1]] * 5
    assert all(shapely.equals_exact(frame.geometry.to_numpy(), footprints(10), tolerance=0))
    assert frame.crs == pyproj.CRS.from_user_input("OGC:CRS84")
    assert frame.crs.to_authority() == ("OGC", "CRS84")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiles of ten and nine rows."""
    folder = tmp_path_factory.mktemp("folder")
    write_geoparquet(folder / "27WXN_20200615_20210703_v001.gpq", [rows(10)], MEAN, PROVENANCE)
    write_geoparquet(folder / "27WXP_20200615_20210703_v001.gpq", [rows(9)], MEAN, PROVENANCE)
    return folder


@pytest.mark.parametrize("as_list", [False, True], ids=["folder", "list"])
def test_geopandas_reads_a_folder_and_a_list_of_files(folder: Path, as_list: bool) -> None:
    frame = geopandas.read_parquet(sorted(folder.iterdir()) if as_list else folder)

    expected = np.concatenate([vectors(10, MEAN), vectors(9, MEAN)])
    np.testing.assert_array_equal(np.stack(frame["embeddings"].tolist()), expected)
    assert all(shapely.equals_exact(frame.geometry.to_numpy()[10:], footprints(9), tolerance=0))
    assert frame.crs.to_authority() == ("OGC", "CRS84")


def test_dataset_finds_geo_and_provenance_in_its_schema(folder: Path) -> None:
    schema = dataset.dataset(folder, format="parquet").schema

    footer = pq.read_metadata(folder / "27WXN_20200615_20210703_v001.gpq").metadata
    assert schema.metadata[b"geo"] == footer[b"geo"]
    assert {key: schema.metadata[b"clay:" + key.encode()].decode() for key in PROVENANCE} == PROVENANCE
    assert schema.field("embeddings").type == pa.fixed_shape_tensor(pa.float32(), MEAN)


@pytest.mark.parametrize("shape", [MEAN, (4, 4, 8)], ids=["mean", "patch"])
def test_footer_has_the_mean_over_rows_and_places(tmp_path: Path, shape: tuple[int, ...]) -> None:
    batch = rows(9, shape)

    write_geoparquet(tmp_path / "file.gpq", [batch.slice(0, 4), batch.slice(4)], shape, PROVENANCE)

    mean = json.loads(pq.read_metadata(tmp_path / "file.gpq").metadata[b"clay:mean"])
    expected = vectors(9, shape).reshape(-1, shape[-1]).astype(float).mean(axis=0)
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-8)


def test_geopandas_reads_the_patch_level_flat(tmp_path: Path) -> None:
    path = tmp_path / "file.gpq"
    write_geoparquet(path, [rows(2, PATCH)], PATCH, PROVENANCE)

    frame = geopandas.read_parquet(path)

    np.testing.assert_array_equal(np.stack(frame["embeddings"].tolist()), vectors(2, PATCH))


def test_duckdb_reads_the_same_rows(published: Path) -> None:
    # DuckDB does not recognise the ending .gpq, so SQL also needs FROM read_parquet('...').
    found = duckdb.read_parquet(str(published)).fetchall()

    source_urls, dates, embeddings, geometries = zip(*found, strict=True)
    assert list(source_urls) == urls(10)
    assert list(dates) == [DATES[0]] * 5 + [DATES[1]] * 5
    np.testing.assert_array_equal(np.array(embeddings, dtype=np.float32), vectors(10, MEAN))
    assert all(shapely.equals_exact(shapely.from_wkb(geometries), footprints(10), tolerance=0))


def test_geo_metadata_passes_the_geoparquet_schema(published: Path) -> None:
    stand_in = DRAFT7.create_resource({"type": "object", "required": ["type", "name"]})
    registry = Registry().with_resource("https://proj.org/schemas/v0.5/projjson.schema.json", stand_in)
    validator = Draft7Validator(json.loads(SCHEMA.read_text()), registry=registry)
    geo = json.loads(pq.read_metadata(published).metadata[b"geo"])

    assert [error.message for error in validator.iter_errors(geo)] == []
    # The validator also checks the CRS:
    geo["columns"]["geometry"]["crs"] = {"type": "GeographicCRS"}
    assert not validator.is_valid(geo)


def test_bbox_covers_all_rows_of_all_batches(tmp_path: Path) -> None:
    path = tmp_path / "file.gpq"
    batch = rows(9)

    write_geoparquet(path, [batch.slice(0, 4), batch.slice(4, 2), batch.slice(6)], MEAN, PROVENANCE)

    union = shapely.union_all(footprints(9)).bounds
    assert geometry_entry(path)["bbox"] == pytest.approx(union, abs=1e-12)


def across_the_antimeridian() -> pa.Array:
    """Three chips of UTM zone 1 as they are read: on each side of 180 degrees, and across it."""
    places = [
        locate(
            read_header(
                chip_bytes(chip_pixels("uint8"), crs="EPSG:32601", origin=(370_000 + east, 7_504_000))
            ),
            512,
        )[0]
        for east in (-5_120, 0, 5_120)
    ]
    return pa.array([place.footprint for place in places], pa.binary())


def test_only_a_chip_across_the_antimeridian_is_published_as_two_polygons(
    tmp_path: Path,
) -> None:
    path = tmp_path / "01WCR_20200615_20210703_v001.gpq"
    whole = across_the_antimeridian()

    write_geoparquet(path, [with_column(rows(3), "geometry", whole)], MEAN, PROVENANCE)

    assert validate(path, name=path.name) == []
    frame = geopandas.read_parquet(path)
    assert frame.geom_type.tolist() == ["Polygon", "MultiPolygon", "Polygon"]
    assert frame.geometry.is_valid.all()
    assert (
        shapely.area(frame.geometry.to_numpy()) < 0.01
    ).all()  # square degrees; around the Earth it would be 16
    found = [row[3] for row in duckdb.read_parquet(str(path)).fetchall()]
    assert (found[0], found[2]) == (whole[0].as_py(), whole[2].as_py())
    assert shapely.from_wkb(found[1]).equals(frame.geometry[1])
    entry = geometry_entry(path)
    assert entry["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert entry["orientation"] == "counterclockwise"
    west, _, east, _ = np.array(entry["bbox"])
    assert (west, east) == (frame.bounds.minx[0], frame.bounds.maxx[2])
    assert 179.6 < west < 180
    assert -180 < east < -179.6


def test_a_multipolygon_that_the_antimeridian_does_not_cut_is_refused(tmp_path: Path) -> None:
    two = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)])
    batch = with_column(rows(1), "geometry", pa.array([shapely.to_wkb(two)], pa.binary()))

    with pytest.raises(RowsRefusedError, match="a geometry that is not"):
        write_geoparquet(tmp_path / "file.gpq", [batch], MEAN, PROVENANCE)


@pytest.mark.parametrize(
    ("reversed_rings", "claim"), [(slice(0, 0), "counterclockwise"), (slice(2, 3), None), (slice(None), None)]
)
def test_orientation_is_claimed_only_if_every_ring_has_it(
    tmp_path: Path, reversed_rings: slice, claim: str | None
) -> None:
    polygons = footprints(4)
    polygons[reversed_rings] = shapely.reverse(polygons[reversed_rings])
    batch = with_column(rows(4), "geometry", pa.array(shapely.to_wkb(polygons), pa.binary()))

    write_geoparquet(tmp_path / "file.gpq", [batch.slice(0, 3), batch.slice(3)], MEAN, PROVENANCE)

    assert geometry_entry(tmp_path / "file.gpq").get("orientation") == claim


def test_every_column_is_zstd_and_vectors_are_split_by_bytes(published: Path) -> None:
    group = pq.read_metadata(published).row_group(0)

    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert "BYTE_STREAM_SPLIT" in columns["embeddings.list.element"].encodings


# Writing


def test_file_does_not_depend_on_the_batches(tmp_path: Path) -> None:
    batch = rows(12)
    pieces: list[pa.RecordBatch | pa.Table] = [
        batch.slice(0, 5),
        batch.slice(5, 0),
        pa.Table.from_batches([batch.slice(5, 1), batch.slice(6, 3)]),
        batch.slice(9),
    ]

    write_geoparquet(tmp_path / "whole.gpq", [batch], MEAN, PROVENANCE)
    write_geoparquet(tmp_path / "pieces.gpq", pieces, MEAN, PROVENANCE)

    assert (tmp_path / "whole.gpq").read_bytes() == (tmp_path / "pieces.gpq").read_bytes()


def test_rows_are_cut_into_row_groups_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "file.gpq"
    batch = rows(16, GROUP)

    write_geoparquet(path, [batch.slice(0, 10), batch.slice(10)], GROUP, PROVENANCE)

    metadata = pq.read_metadata(path)
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [7, 7, 2]
    assert pq.read_table(path, columns=["source_url"])["source_url"].to_pylist() == urls(16)
    last = pq.ParquetFile(path).read_row_group(2)["embeddings"].combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(last.reshape(2, -1), vectors(16, GROUP)[14:])


def test_batches_are_joined_once_for_each_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[int] = []
    concat = pa.concat_tables

    def counting(tables: list[pa.Table]) -> pa.Table:
        joined.append(len(tables))
        return concat(tables)

    monkeypatch.setattr(pa, "concat_tables", counting)
    batch = rows(16, GROUP)

    write_geoparquet(tmp_path / "file.gpq", [batch.slice(row, 1) for row in range(16)], GROUP, PROVENANCE)

    assert joined == [7, 8, 3]  # the second and third begin with the empty rest of the one before


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    live: set[int] = set()
    most = 0
    one = rows(1, GROUP)

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal most
        for index in range(40):
            values = np.full(int(np.prod(GROUP)), index, dtype=np.float32)
            live.add(index)
            weakref.finalize(values, live.discard, index)
            column = pa.FixedSizeListArray.from_arrays(pa.array(values), len(values))
            del values
            yield with_column(one, "embeddings", column)
            gc.collect(0)
            most = max(most, len(live))

    write_geoparquet(tmp_path / "file.gpq", batches(), GROUP, PROVENANCE)

    per_group = ROW_GROUP_BYTES // (4 * int(np.prod(GROUP)))
    assert per_group <= most <= 2 * per_group


def test_list_child_may_have_another_name(tmp_path: Path) -> None:
    batch = rows(2)
    renamed = batch["embeddings"].cast(pa.list_(pa.field("element", pa.float32(), nullable=True), 768))

    write_geoparquet(tmp_path / "file.gpq", [with_column(batch, "embeddings", renamed)], MEAN, PROVENANCE)

    assert pq.read_schema(tmp_path / "file.gpq").equals(published_schema(MEAN))


# Refusals of the writer


def vectors_with(value: float | None) -> pa.Array:
    flat = pa.array(
        vectors(4, MEAN).reshape(-1).tolist()[: 2 * 768 + 5] + [value] + [0.0] * (2 * 768 - 6), pa.float32()
    )
    return pa.FixedSizeListArray.from_arrays(flat, 768)


def polygon_wkb(replacement: bytes | None) -> pa.Array:
    return pa.array(
        [*shapely.to_wkb(footprints(4))[:2], replacement, shapely.to_wkb(footprints(4))[3]], pa.binary()
    )


def ring_wkb(corners: list[tuple[float, float]]) -> bytes:
    """A polygon's WKB byte by byte, as shapely would not write it: little-endian, one ring."""
    return struct.pack("<BIII", 1, 3, 1, len(corners)) + b"".join(struct.pack("<dd", *xy) for xy in corners)


BOX = shapely.box(-25, 65, -24, 66)
NULL_VECTOR = pa.array(
    [*vectors(4, MEAN)[:2].tolist(), None, vectors(4, MEAN)[3].tolist()], pa.list_(pa.float32(), 768)
)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("embeddings", vectors_with(float("nan")), "NaN, infinity or null"),
        ("embeddings", vectors_with(float("-inf")), "NaN, infinity or null"),
        ("embeddings", vectors_with(None), "NaN, infinity or null"),
        ("embeddings", NULL_VECTOR, "a null embeddings"),
        ("date", pa.array([*DATES, None, DATES[1]], pa.date32()), "a null date"),
        ("geometry", polygon_wkb(None), "a null geometry"),
        ("geometry", polygon_wkb(b"\x01\x03"), "a geometry that is not"),
        ("geometry", polygon_wkb(shapely.to_wkb(shapely.Point(-25, 65))), "a geometry that is not"),
        ("geometry", polygon_wkb(shapely.to_wkb(shapely.Polygon())), "a geometry that is not"),
        (
            "geometry",
            polygon_wkb(ring_wkb([(0, 0), (1, 0), (1, math.nan), (0, 1), (0, 0)])),
            "a geometry that is not",
        ),
        (
            "geometry",
            polygon_wkb(ring_wkb([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0.5)])),
            "a geometry that is not",
        ),
        ("geometry", polygon_wkb(shapely.to_wkb(shapely.force_3d(BOX, 5.0))), "2-D polygon"),
        ("geometry", polygon_wkb(shapely.to_wkb(shapely.box(6e5, 7e6, 6e5 + 1, 7e6 + 1))), "within ±180"),
        (
            "geometry",
            polygon_wkb(shapely.to_wkb(shapely.set_srid(BOX, 4326), include_srid=True)),
            "the WKB of",
        ),
    ],
)
def test_faulty_row_is_refused_with_its_url(
    tmp_path: Path, column: str, values: pa.Array, message: str
) -> None:
    batch = with_column(rows(4), column, values)

    with pytest.raises(RowsRefusedError, match=message) as refusal:
        write_geoparquet(tmp_path / "file.gpq", [batch], MEAN, PROVENANCE)

    assert f"1 row(s) with {'an' if 'NaN' in message else 'a'} " in str(refusal.value)
    assert urls(4)[2] in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_row_without_url_is_refused_with_its_index(tmp_path: Path) -> None:
    batch = with_column(rows(3), "source_url", pa.array([urls(3)[0], None, urls(3)[2]]))

    with pytest.raises(RowsRefusedError, match="a null source_url, the first of them row 1 of its batch"):
        write_geoparquet(tmp_path / "file.gpq", [batch], MEAN, PROVENANCE)


def test_all_faults_of_a_batch_are_named_at_once(tmp_path: Path) -> None:
    batch = with_column(rows(4), "embeddings", vectors_with(float("nan")))
    batch = with_column(batch, "geometry", polygon_wkb(None).slice(0, 4))

    with pytest.raises(RowsRefusedError, match=r"null geometry.*NaN"):
        write_geoparquet(tmp_path / "file.gpq", [batch], MEAN, PROVENANCE)


def test_fault_in_a_slice_is_found_in_the_right_row(tmp_path: Path) -> None:
    batch = with_column(rows(4), "embeddings", vectors_with(float("nan")))

    with pytest.raises(RowsRefusedError, match=urls(4)[2]):
        write_geoparquet(tmp_path / "file.gpq", [batch.slice(1)], MEAN, PROVENANCE)
    write_geoparquet(tmp_path / "file.gpq", [batch.slice(3)], MEAN, PROVENANCE)
    assert pq.read_table(tmp_path / "file.gpq")["source_url"].to_pylist() == urls(4)[3:]


def test_wrong_width_is_refused_with_the_first_url(tmp_path: Path) -> None:
    with pytest.raises(RowsRefusedError, match=rf"768 values for {urls(1)[0]}; expected 196608"):
        write_geoparquet(tmp_path / "file.gpq", [rows(2)], PATCH, PROVENANCE)


def test_wrong_types_are_all_named(tmp_path: Path) -> None:
    batch = with_column(rows(2), "date", pa.array(["2020-06-15", "2021-07-03"]))
    batch = with_column(batch, "embeddings", rows(2)["embeddings"].cast(pa.list_(pa.float32())))

    with pytest.raises(RowsRefusedError, match=r"date as string; expected date32.*embeddings as list<"):
        write_geoparquet(tmp_path / "file.gpq", [batch], MEAN, PROVENANCE)


def test_missing_or_additional_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RowsRefusedError, match=r"got the columns \['source_url', 'date', 'embeddings'\]; expected"
    ):
        write_geoparquet(tmp_path / "file.gpq", [rows(2).drop_columns(["geometry"])], MEAN, PROVENANCE)


@pytest.mark.parametrize("batches", [[], [rows(0)]])
def test_no_rows_give_no_file(tmp_path: Path, batches: list[pa.RecordBatch]) -> None:
    with pytest.raises(RowsRefusedError, match=r"got no rows for file\.gpq; expected at least one"):
        write_geoparquet(tmp_path / "file.gpq", batches, MEAN, PROVENANCE)

    assert list(tmp_path.iterdir()) == []


def test_interrupted_write_leaves_the_earlier_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "file.gpq"
    write_geoparquet(path, [rows(2)], MEAN, PROVENANCE)
    before = path.read_bytes()

    def interrupted() -> Iterator[pa.RecordBatch]:
        yield rows(8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_geoparquet(path, interrupted(), MEAN, PROVENANCE)

    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.gpq"]


def test_schema_needs_a_shape() -> None:
    with pytest.raises(ValueError, match="expected at least one dimension"):
        published_schema(())


# Provenance


def test_footer_has_the_provenance(published: Path) -> None:
    pairs = pq.read_metadata(published).metadata

    assert pairs[b"clay:checkpoint_sha256"] == b"0" * 64
    assert read_provenance(published) == PROVENANCE


def test_provenance_is_read_from_the_footer_alone(tmp_path: Path) -> None:
    path = tmp_path / "file.gpq"
    write_geoparquet(path, [rows(300)], MEAN, {**PROVENANCE, "weights": "untrained"})
    footer_only = path.read_bytes()
    # The first half of the file is overwritten: reading the rows would fail.
    half = len(footer_only) // 2
    file = io.BytesIO(b"\0" * half + footer_only[half:])

    assert read_provenance(file)["weights"] == "untrained"
    assert not file.closed


def test_unrelated_parquet_file_has_no_provenance(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")

    assert read_provenance(tmp_path / "other.parquet") == {}


def test_provenance_names_with_the_prefix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['clay:model'\]; expected them without 'clay:'"):
        write_geoparquet(tmp_path / "file.gpq", [rows(1)], MEAN, {"clay:model": "small"})


# Names


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("27WXN_20200101_20231231_v001.gpq", ("27WXN", date(2020, 1, 1), date(2023, 12, 31), 1)),
        (
            "03WVN_20220610_20220610_v001.gpq",
            ("03WVN", date(2022, 6, 10), date(2022, 6, 10), 1),
        ),  # Clay's own
        ("27WXN_20200101_20231231_v1000.gpq", ("27WXN", date(2020, 1, 1), date(2023, 12, 31), 1000)),
    ],
)
def test_name_is_built_and_parsed(name: str, parts: tuple[str, date, date, int]) -> None:
    assert str(PublishedName(*parts)) == name
    assert parse_published_name(name) == PublishedName(*parts)


@pytest.mark.parametrize(
    "name",
    [
        "27WXN_20200101_20231231_v01.gpq",  # two digits
        "27WXN_20200101_20231231_v001.parquet",
        ".27WXN_20200101_20231231_v001.gpq.0a1b2c3d4e5f.tmp",  # one being written
        "27WXN_20200230_20231231_v001.gpq",  # no such day
        "27WXN_20231231_20200101_v001.gpq",  # backwards
        "7WXN_20200101_20231231_v001.gpq",
        "s3://bucket/27WXN_20200101_20231231_v001.gpq",
        "27WXN_20200101_20231231_v001.gpq\n",
    ],
)
def test_other_names_are_not_parsed(name: str) -> None:
    assert parse_published_name(name) is None


@pytest.mark.parametrize(
    ("tile", "first", "last", "version"),
    [("7wxn", *DATES, 1), ("27WXN", DATES[1], DATES[0], 1), ("27WXN", *DATES, -1), ("../27WXN", *DATES, 1)],
)
def test_name_that_cannot_be_parsed_again_is_refused(
    tile: str, first: date, last: date, version: int
) -> None:
    with pytest.raises(
        ValueError, match="Expected an MGRS tile such as 27WXN, a first date not after the last"
    ):
        PublishedName(tile, first, last, version)


def test_written_files_pass_their_own_validation(published: Path) -> None:
    assert validate(published, name=published.name) == []
