"""`export` writes the rows of the published files for sharing; geopandas and NumPy are the oracles."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow.dataset as dataset
import pyarrow.parquet as pq
import pytest
import shapely
from jsonschema import Draft7Validator

from clay_assets import read_embeddings, similar
from clay_assets.cli import main
from clay_assets.export import layout
from clay_assets.export.dataset import Exported, export
from clay_assets.export.layout import row_groups
from clay_assets.export.quantization import recall
from clay_assets.reading import NothingToRead, read_vectors
from clay_assets.storage import Store
from clay_assets_tests.reading.collection import (
    CHIPS,
    DAYS,
    chip_url,
    squares,
    write,
    write_collection,
)
from clay_assets_tests.s3_server import S3Bucket
from clay_assets_tests.stac.schemas import faults

A = chip_url("27WXM", DAYS[0], 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("export") / "embeddings")


@pytest.fixture(scope="module")
def floats(folder: Path) -> Exported:
    return export(folder, Store(folder.parent / "floats"))


@pytest.fixture(scope="module")
def integers(folder: Path) -> Exported:
    return export(folder, Store(folder.parent / "integers"), dtype="uint8")


def by_url(frame: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    return frame.sort_values("source_url").reset_index(drop=True)


def test_every_row_is_exported_once_with_its_vector_date_and_geometry(folder: Path, floats: Exported) -> None:
    copy, original = (by_url(geopandas.read_parquet(where)) for where in (floats.url, folder))

    assert copy["source_url"].tolist() == original["source_url"].tolist()
    assert copy["date"].tolist() == original["date"].tolist()
    np.testing.assert_array_equal(np.stack(copy["embeddings"]), np.stack(original["embeddings"]))
    assert copy.geometry.geom_equals(original.geometry).all()
    assert (floats.rows, floats.files, floats.recall) == (4 * CHIPS, 2, None)
    assert (floats.first, floats.last) == DAYS


def test_rows_are_in_their_zone_and_year_along_the_hilbert_curve(floats: Exported) -> None:
    paths = sorted(path.relative_to(floats.url).as_posix() for path in Path(floats.url).rglob("*.parquet"))

    assert paths == [f"grid_zone=27W/year={day.year}/embeddings.parquet" for day in DAYS]
    for path, day in zip(paths, DAYS, strict=True):
        frame = geopandas.read_parquet(Path(floats.url) / path, partitioning=None)
        assert set(frame["date"]) == {day}
        distances = frame.geometry.hilbert_distance((-180, -90, 180, 90), level=16)
        assert distances.is_monotonic_increasing


def test_bbox_column_is_the_footprints_bounds_and_lets_readers_skip(floats: Exported) -> None:
    path = next(Path(floats.url).rglob("*.parquet"))
    frame = geopandas.read_parquet(path)
    column = pq.read_table(path, partitioning=None)["bbox"].combine_chunks()
    boxes = np.stack([column.field(edge).to_numpy() for edge in ("xmin", "ymin", "xmax", "ymax")], axis=1)

    np.testing.assert_array_equal(boxes, shapely.bounds(frame.geometry.to_numpy()))
    inside = squares("27WXN")[0].buffer(-0.01).bounds
    # A filter by boxes also keeps a row whose box overlaps although its rotated square does not.
    assert 1 <= len(geopandas.read_parquet(path, bbox=inside)) < CHIPS
    group = pq.read_metadata(path).row_group(0)
    chunks = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    assert chunks["bbox.xmin"].statistics.min == boxes[:, 0].min()
    assert {chunk.compression for chunk in chunks.values()} == {"ZSTD"}


def test_geo_metadata_of_footer_and_dataset_passes_the_schema(floats: Exported) -> None:
    definition = json.loads((Path(__file__).parent.parent / "schemas" / "geoparquet-v1.1.0.json").read_text())
    definition["properties"]["columns"]["patternProperties"][".+"]["properties"]["crs"] = {"type": "object"}
    path = next(Path(floats.url).rglob("*.parquet"))

    for pairs in (pq.read_metadata(path).metadata, dataset.dataset(floats.url).schema.metadata):
        geo = json.loads(pairs[b"geo"])
        assert [error.message for error in Draft7Validator(definition).iter_errors(geo)] == []
        assert pairs[b"clay:model"] == b"clay-v0-small"
        assert pairs[b"clay:chips"] == b"50"


def test_bytes_are_within_half_a_step_of_the_numbers(folder: Path, integers: Exported) -> None:
    frame, copy = read_vectors(integers.url)
    original, vectors = read_vectors(folder)
    exact = vectors[[original["source_url"].tolist().index(url) for url in frame["source_url"]]]

    steps = (vectors.max(axis=0) - vectors.min(axis=0)) / 255
    assert (np.abs(copy - exact) <= steps / 2 * 1.001 + 1e-7).all()
    path = next(Path(integers.url).rglob("*.parquet"))
    stored = pq.read_table(path, partitioning=None)["embeddings"].combine_chunks().to_numpy_ndarray()
    assert stored.dtype == np.uint8
    quantization = json.loads(pq.read_metadata(path).metadata[b"clay:quantization"])
    # One map for all files, applied as another reader would from the footer.
    np.testing.assert_allclose(
        stored * np.array(quantization["scale"]) + quantization["offset"],
        [
            copy[frame["source_url"].tolist().index(url)]
            for url in pq.read_table(path)["source_url"].to_pylist()
        ],
        atol=1e-6,
    )


def test_recall_equals_that_of_numpy(folder: Path, integers: Exported) -> None:
    frame, copy = read_vectors(integers.url)
    original, vectors = read_vectors(folder)
    exact = vectors[[original["source_url"].tolist().index(url) for url in frame["source_url"]]]

    def nearest(rows: Any, mean: Any) -> list[set[int]]:  # noqa: ANN401 - arrays
        units = (rows - mean) / np.linalg.norm(rows - mean, axis=1, keepdims=True)
        cosine = units @ units.T
        np.fill_diagonal(cosine, -2)
        return [set(row) for row in np.argsort(-cosine, axis=1)[:, :10].tolist()]

    assert integers.recall is not None
    for reported, mean in ((integers.recall.raw, 0.0), (integers.recall.centred, vectors.mean(axis=0))):
        pairs = zip(nearest(exact, mean), nearest(copy, mean), strict=True)
        assert reported == pytest.approx(np.mean([len(a & b) / 10 for a, b in pairs]), abs=0.003)
    assert (integers.recall.queries, integers.recall.among) == (4 * CHIPS, 4 * CHIPS)
    assert json.loads((Path(integers.url) / "_report.json").read_text())["recall"] == vars(integers.recall)


def test_recall_of_an_exact_copy_is_one_and_of_noise_is_not() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((300, 16)).astype(np.float32)
    noise = random.standard_normal((300, 16)).astype(np.float32)

    same, other = (recall(vectors, copy, vectors.mean(axis=0)) for copy in (vectors, noise))

    assert same is not None
    assert other is not None
    assert (same.raw, same.centred) == (1, 1)
    assert other.raw < 0.2
    assert recall(vectors[:5], vectors[:5], vectors.mean(axis=0)) is None


def test_copy_is_read_and_searched_like_the_published_files(
    folder: Path, floats: Exported, integers: Exported
) -> None:
    expected = similar(folder, to=A, k=5)

    np.testing.assert_allclose(
        similar(floats.url, to=A, k=5)["similarity"], expected["similarity"], atol=1e-6
    )
    np.testing.assert_allclose(
        similar(integers.url, to=A, k=5)["similarity"], expected["similarity"], atol=0.02
    )
    chosen = read_embeddings(integers.url, tiles=["27WXN"], dates=(DAYS[1], DAYS[1]))
    assert sorted(chosen["source_url"]) == [chip_url("27WXN", DAYS[1], n + 1) for n in range(CHIPS)]


def test_item_of_the_copy_has_its_quantization(integers: Exported) -> None:
    item = json.loads((Path(integers.url) / "_item.json").read_text())

    assert faults(item, "stac-embeddings-v0.0.1.json") == []
    quantization = json.loads(
        pq.read_metadata(next(Path(integers.url).rglob("*.parquet"))).metadata[b"clay:quantization"]
    )
    assert item["properties"]["emb:quantization"]["scale"] == quantization["scale"]
    assert item["properties"]["emb:quantization"]["offset"] == quantization["offset"]


@pytest.mark.parametrize(
    ("rows", "groups"),
    [(1, [1]), (9_999, [9_999]), (14_999, [14_999]), (15_001, [7_501, 7_500]), (40_000, [10_000] * 4)],
)
def test_row_groups_have_between_five_and_twenty_thousand_rows(rows: int, groups: list[int]) -> None:
    assert [len(group) for group in row_groups(pd.DataFrame(index=range(rows)))] == groups


def test_many_row_groups_hold_the_same_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, floats: Exported
) -> None:
    monkeypatch.setattr(layout, "ROWS", 7)

    cut = export(folder, Store(tmp_path))

    assert pq.read_metadata(next(tmp_path.rglob("*.parquet"))).num_row_groups == 3
    again, once = geopandas.read_parquet(cut.url), geopandas.read_parquet(floats.url)
    assert again["source_url"].tolist() == once["source_url"].tolist()
    np.testing.assert_array_equal(np.stack(again["embeddings"]), np.stack(once["embeddings"]))


def test_files_in_a_bucket_are_read_with_the_options_given(
    folder: Path, floats: Exported, tmp_path: Path, bucket: S3Bucket
) -> None:
    for path in folder.iterdir():
        bucket.store("embeddings").put(path.name, path)

    done = export(bucket.uri("embeddings"), Store(tmp_path / "copy"), options=bucket.options)

    assert (done.rows, done.files, done.bytes) == (floats.rows, floats.files, floats.bytes)


def test_replaced_export_keeps_no_partition_of_the_earlier_one(tmp_path: Path, bucket: S3Bucket) -> None:
    target = bucket.store("copy")
    write(tmp_path, "27WXN", 1)
    export(tmp_path, target)
    next(tmp_path.iterdir()).unlink()
    write(tmp_path, "27WXN", 1, days=DAYS[:1])

    export(tmp_path, target)

    names = [found.url.removeprefix(f"{target.uri}/") for found in target.list()]
    assert names == ["_item.json", "_report.json", "grid_zone=27W/year=2020/embeddings.parquet"]


def test_unsuitable_files_and_targets_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder of its own"):
        export(folder, Store(folder / "copy"))
    with pytest.raises(ValueError, match="a folder of its own"):
        export(folder, Store(folder.parent))
    shutil.copy(next(folder.iterdir()), tmp_path / "mine.parquet")
    with pytest.raises(ValueError, match=r"mine\.parquet"):
        export(tmp_path, Store(tmp_path.parent / "copy"))
    with pytest.raises(NothingToRead):
        export(folder, Store(tmp_path / "copy"), version=9)
    write(tmp_path / "..", "27WXN", 1, shape=(2, 2, 12))
    with pytest.raises(ValueError, match="one vector a row"):
        export(tmp_path.parent / "27WXN_20200615_20210703_v001.gpq", Store(tmp_path / "copy"))


def test_command_prints_counts_and_recall(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "copy"), "--where", str(folder), "--dtype", "uint8"]) == 0

    output = capsys.readouterr().out
    assert f"{4 * CHIPS} rows in 2 files" in output
    assert "recall@10 against float32: 0.9" in output
    assert main(["export", str(folder / "copy"), "--where", str(folder)]) == 2
    assert "a folder of its own" in capsys.readouterr().err


GPIO = shutil.which("gpio")
"""geoparquet-io; in its own environment, because it needs an older DuckDB than ours."""


@pytest.mark.skipif(GPIO is None, reason="geoparquet-io is not on PATH")
def test_geoparquet_io_finds_no_fault(floats: Exported) -> None:
    for path in Path(floats.url).rglob("*.parquet"):
        command = [str(GPIO), "check", "all", "--strict", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
        findings = [line for line in output.splitlines() if line.strip().startswith(("✗", "⚠"))]
        # Its check against the specification loads an extension of DuckDB from the network; without one, the
        # schema of `test_geo_metadata_of_footer_and_dataset_passes_the_schema` stands in.
        offline = "could not install the DuckDB 'spatial' extension" in output
        assert [line for line in findings if not (offline and "could not run" in line)] == [], output
        assert "✓ Data appears to be spatially ordered" in output
        assert "✓ Found bbox column 'bbox' with proper metadata covering" in output
