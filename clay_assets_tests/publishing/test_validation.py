"""What `validate` reports about altered and damaged published files."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely

from clay_assets.parquet import DamagedFileError
from clay_assets.publishing.schema import read_provenance
from clay_assets.publishing.validation import validate
from clay_assets.publishing.writer import ROW_GROUP_BYTES, write_geoparquet
from clay_assets_tests.publishing.geoparquet_rows import PROVENANCE, footprints, rows, urls

SHAPE = (16,)
GROUP = (6, 16, 16, 768)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "27WXN_20200615_20210703_v001.gpq"
    write_geoparquet(path, [rows(6, SHAPE)], SHAPE, PROVENANCE)
    return path


def rewrite(
    path: Path,
    table: Callable[[pa.Table], pa.Table] = lambda table: table,
    geo: Callable[[dict[str, Any]], object] = lambda _: None,
    **options: Any,  # noqa: ANN401 (pyarrow's own)
) -> None:
    """Write the file again with pyarrow alone, its table replaced and its `geo` metadata changed in place."""
    changed = table(pq.read_table(path))
    metadata = dict(pq.read_metadata(path).metadata)
    described = json.loads(metadata[b"geo"])
    geo(described)
    metadata[b"geo"] = json.dumps(described).encode()
    metadata.pop(b"ARROW:schema")
    pq.write_table(changed.replace_schema_metadata(metadata), path, **{"compression": "zstd", **options})


def column_of(described: dict[str, Any]) -> dict[str, Any]:
    column: dict[str, Any] = described["columns"]["geometry"]
    return column


def set_column(name: str, values: Sequence[object]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        field = table.schema.field(index)
        if isinstance(field.type, pa.ExtensionType):
            array = pa.ExtensionArray.from_storage(field.type, pa.array(values, field.type.storage_type))
        else:
            array = pa.array(values, field.type)
        return table.set_column(index, field, array)

    return change


def test_untouched_file_has_no_faults_even_when_rewritten_by_others(published: Path) -> None:
    assert validate(published, name=published.name) == []
    rewrite(published)
    assert validate(published, name=published.name) == []


def test_open_file_is_read_and_left_open(published: Path) -> None:
    with published.open("rb") as file:
        assert validate(file) == []
        assert not file.closed


def test_all_row_groups_are_validated(tmp_path: Path) -> None:
    path = tmp_path / "file.gpq"
    write_geoparquet(path, [rows(9, GROUP)], GROUP, {**PROVENANCE, "level": "group"})

    assert pq.read_metadata(path).num_row_groups == 2
    assert validate(path) == []


def test_validation_holds_only_a_few_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "file.gpq"
    write_geoparquet(path, [rows(40, GROUP)], GROUP, {**PROVENANCE, "level": "group"})
    script = (
        "import sys, pyarrow; from clay_assets.publishing.validation import validate;"
        "print(validate(sys.argv[1]), pyarrow.default_memory_pool().max_memory())"
    )

    # Its own process, because Arrow counts its peak from the start of the process.
    done = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True, text=True)

    faults, peak = done.stdout.split()
    assert faults == "[]"
    # 4.2 row groups at the time of writing; 8.3 if pages are buffered ahead, growing with the rows.
    assert int(peak) < 6 * ROW_GROUP_BYTES


def test_missing_crs_means_crs84(published: Path) -> None:
    rewrite(published, geo=lambda geo: column_of(geo).pop("crs"))

    assert validate(published) == []


NAN_ROW = [[0.0] * 16] * 2 + [[np.nan] * 16] + [[1.0] * 16] * 3
WKB = list(shapely.to_wkb(footprints(6)))
CHIPS = urls(6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda t: t.add_column(0, "index", pa.array(range(6))),
            "The columns are index, source_url, date, embeddings, geometry; expected source_url, date,",
        ),
        (
            lambda t: t.set_column(
                2, "embeddings", t["embeddings"].combine_chunks().storage.cast(pa.list_(pa.float32()))
            ),
            "Column embeddings has type list<element: float>; expected a fixed_shape_tensor of float, each",
        ),
        (
            lambda t: t.set_column(1, "date", t["date"].cast(pa.timestamp("ms"))),
            "Column date has type timestamp[ms]; expected date32[day].",
        ),
        (lambda t: t.slice(0, 0), "The file has no rows."),
        (
            set_column("embeddings", NAN_ROW),
            f"1 row(s) with an embedding that holds NaN, infinity or null, the first of them {CHIPS[2]}.",
        ),
        (set_column("geometry", [*WKB[:5], None]), f"a null geometry, the first of them {CHIPS[5]}."),
        (
            set_column("geometry", [shapely.to_wkb(shapely.Point(0, 0))] * 6),
            "The file has 6 row(s) with a geometry",
        ),
        (
            lambda t: t.take([0, 1, 2, 4, 3, 5]),
            f"below that of the row before, the first of them {CHIPS[3]}.",
        ),
        (
            lambda t: t.take([3, 4, 5, 0, 1, 2]),
            f"below that of the row before, the first of them {CHIPS[0]}.",
        ),
        (
            lambda t: t.take([0, 1, 2, 3, 4, 4]),
            f"the source_url and footprint of an earlier row, the first of them {CHIPS[4]}.",
        ),
        (lambda t: t.slice(1), "the rows' is ["),
        (
            lambda t: t.slice(0, 3),
            "says 2020-06-15 to 2021-07-03; the rows' dates are 2020-06-15 to 2020-06-15.",
        ),
        (
            set_column("geometry", list(shapely.to_wkb(shapely.reverse(footprints(6))))),
            "geo: orientation is 'counterclockwise'; that is not true of every polygon.",
        ),
    ],
)
def test_wrong_rows_are_reported(
    published: Path, change: Callable[[pa.Table], pa.Table], sentence: str
) -> None:
    rewrite(published, change)

    faults = validate(published, name=published.name)

    assert any(sentence in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda geo: geo.update(version="1.1.0"), "geo: version is '1.1.0'; expected '1.0.0'."),
        (
            lambda geo: geo.update(primary_column="outline"),
            "geo: primary_column is 'outline'; expected 'geometry'.",
        ),
        (
            lambda geo: geo["columns"].update(centre={}),
            "The geo metadata is not that of one column named geometry",
        ),
        (lambda geo: geo.pop("columns"), "The geo metadata is not that of one column named geometry"),
        (lambda geo: column_of(geo).update(encoding="point"), "geo: encoding is 'point'; expected 'WKB'."),
        (
            lambda geo: column_of(geo).update(geometry_types=[]),
            "geo: geometry_types is []; expected ['Polygon'].",
        ),
        (
            lambda geo: column_of(geo).update(edges="spherical"),
            "geo: edges is 'spherical'; expected 'planar'.",
        ),
        (lambda geo: column_of(geo).update(crs=None), "geo: crs is not OGC:CRS84."),
        (
            lambda geo: column_of(geo).update(crs=pyproj.CRS("EPSG:32627").to_json_dict()),
            "geo: crs is not OGC:CRS84.",
        ),
        (lambda geo: column_of(geo).pop("bbox"), "geo: bbox is None; the rows' is ["),
        (
            lambda geo: column_of(geo).update(bbox=[-180, -90, 180, 90]),
            "geo: bbox is [-180, -90, 180, 90]; the rows'",
        ),
    ],
)
def test_wrong_geo_metadata_is_reported(
    published: Path, change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    rewrite(published, geo=change)

    (fault,) = validate(published, name=published.name)

    assert fault.startswith(sentence)


def test_other_compression_is_reported(published: Path) -> None:
    rewrite(published, compression="snappy")

    assert validate(published) == ["Columns are compressed with SNAPPY; expected ZSTD."]


def test_missing_provenance_is_named(published: Path) -> None:
    write_geoparquet(published, [rows(2, SHAPE)], SHAPE, {"model": "clay v0 small", "precision": ""})

    assert validate(published) == [
        "The footer lacks clay:checkpoint_sha256, clay:level, clay:precision, clay:software."
    ]


def test_provenance_that_is_not_utf8_hides_no_other_fault(published: Path) -> None:
    rewrite(published, lambda table: table.take([0, 1, 2, 4, 3, 5]))
    table, metadata = pq.read_table(published), pq.read_metadata(published).metadata
    del metadata[b"ARROW:schema"]
    pq.write_table(
        table.replace_schema_metadata(metadata | {b"clay:model": b"\xff"}), published, compression="zstd"
    )

    provenance, order = validate(published, name=published.name)

    assert provenance.startswith("The footer's provenance is not UTF-8 (")
    assert "below that of the row before" in order


@pytest.mark.parametrize("shape", [[], [0], [0, 3]])
def test_tensors_without_numbers_are_reported(published: Path, shape: list[int]) -> None:
    def emptied(table: pa.Table) -> pa.Table:
        kind = pa.fixed_shape_tensor(pa.float32(), shape)
        storage = pa.array([[1.0] * kind.storage_type.list_size] * len(table), kind.storage_type)
        return table.set_column(2, "embeddings", pa.ExtensionArray.from_storage(kind, storage))

    rewrite(published, emptied)

    (fault,) = validate(published)

    assert fault.endswith("expected a fixed_shape_tensor of float, each dimension 1 or more.")


def test_name_of_another_form_is_reported(published: Path) -> None:
    (fault,) = validate(published, name="27WXN.gpq")

    assert fault == "The name 27WXN.gpq is not of the form 27WXN_20200101_20231231_v001.gpq."


def test_plain_parquet_file_gets_every_fault_at_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "plain.parquet")

    columns, provenance, geo = validate(tmp_path / "plain.parquet")

    assert columns.startswith("The columns are a; expected source_url")
    assert provenance.startswith("The footer lacks clay:model, ")
    assert geo == "The file has no geo metadata: it is not a GeoParquet file."


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.99], ids=lambda keep: f"keep {keep}")
def test_truncated_file_is_reported_in_one_sentence(published: Path, keep: float) -> None:
    whole = published.read_bytes()
    published.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])

    (fault,) = validate(published)

    assert fault.startswith("The file can't be read as Parquet (")
    with pytest.raises(DamagedFileError, match="write it again"):
        read_provenance(published)


def test_overwritten_rows_are_reported_in_one_sentence(published: Path) -> None:
    whole = published.read_bytes()
    published.write_bytes(whole[:4] + b"\xff" * (len(whole) // 4) + whole[4 + len(whole) // 4 :])

    (fault,) = validate(published)

    assert fault.startswith("The file can't be read as Parquet (")


def test_missing_file_is_an_error_of_the_storage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        validate(tmp_path / "nowhere.gpq")
    with pytest.raises(FileNotFoundError):
        read_provenance(tmp_path / "nowhere.gpq")
