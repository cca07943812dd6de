"""`read_embeddings` and `read_vectors` on real folders, files and an S3 server; geopandas as the oracle."""

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from clay_assets.parquet import DamagedFileError
from clay_assets.publishing.writer import write_geoparquet
from clay_assets.reading import MixedEmbeddings, NothingToRead, read_embeddings, read_vectors
from clay_assets.reading.files import find_files
from clay_assets.reading.scan import blocks, footers
from clay_assets.reading.selection import Selection
from clay_assets.stac.item import file_item
from clay_assets_tests.reading.collection import (
    CHIPS,
    DAYS,
    PROVENANCE,
    WIDTH,
    clay_like,
    rows,
    squares,
    write,
    write_collection,
)
from clay_assets_tests.s3_server import S3Bucket


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("reading") / "embeddings")


def oracle(folder: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(folder)


def test_folder_gives_the_rows_of_geopandas(folder: Path) -> None:
    frame = read_embeddings(folder)

    expected = oracle(folder)
    assert list(frame.columns) == list(expected.columns)
    assert frame["source_url"].tolist() == expected["source_url"].tolist()
    assert frame["date"].tolist() == expected["date"].tolist()
    assert frame.geometry.geom_equals(expected.geometry).all()
    assert frame.crs == expected.crs
    np.testing.assert_array_equal(np.stack(frame["embeddings"].tolist()), np.stack(expected["embeddings"]))
    assert frame.attrs["clay"] == PROVENANCE


def test_bucket_gives_the_rows_of_the_folder(folder: Path, bucket: S3Bucket) -> None:
    for path in folder.iterdir():
        bucket.store("embeddings").put(path.name, path)

    frame, vectors = read_vectors(bucket.uri("embeddings"), options=bucket.options)
    alone = read_embeddings(bucket.uri("embeddings/27WXN_20200615_20210703_v001.gpq"), options=bucket.options)

    assert frame["source_url"].tolist() == oracle(folder)["source_url"].tolist()
    np.testing.assert_array_equal(vectors, np.stack(oracle(folder)["embeddings"]))
    assert len(alone) == 2 * CHIPS


def test_list_of_files_reads_each_once_in_the_order_of_names(folder: Path) -> None:
    first, second = sorted(folder.iterdir())

    frame = read_embeddings([second, first, first])

    assert frame["source_url"].tolist() == oracle(folder)["source_url"].tolist()


def test_tiles_dates_and_bbox_select_rows_like_a_filter(folder: Path) -> None:
    everything = oracle(folder)
    box = squares("27WXN")[5].buffer(-0.01).bounds

    found = read_embeddings(folder, tiles=["27WXN"], bbox=box, dates=(date(2021, 1, 1), date(2021, 12, 31)))

    expected = everything[
        everything.intersects(shapely.box(*box)) & (everything["date"] == DAYS[1])
    ]  # the box is inside 27WXN
    assert len(expected) == 1
    assert found["source_url"].tolist() == expected["source_url"].tolist()
    np.testing.assert_array_equal(np.stack(found["embeddings"]), np.stack(expected["embeddings"]))


@pytest.mark.parametrize("box", [(-30, 60, -10, 80), (-18.75, 64.0, -18.62, 65.05), (100, 0, 101, 1)])
def test_bbox_selects_the_rows_of_geopandas(folder: Path, box: tuple[float, float, float, float]) -> None:
    everything = oracle(folder)

    found = read_embeddings(folder, bbox=box)

    expected = everything[everything.intersects(shapely.box(*box))]
    assert found["source_url"].tolist() == expected["source_url"].tolist()


def test_bbox_may_cross_the_antimeridian(folder: Path) -> None:
    assert len(read_embeddings(folder, bbox=(170, 60, -10, 80))) == len(oracle(folder))
    assert len(read_embeddings(folder, bbox=(170, 60, -170, 80))) == 0


def test_footprints_across_the_antimeridian_are_found_on_either_side_and_nowhere_else(tmp_path: Path) -> None:
    west, east = shapely.box(179.98, 65, 180, 65.04), shapely.box(-180, 65, -179.96, 65.04)
    across = shapely.multipolygons([west, east])
    table = rows("27WXN", 1).slice(0, 1)
    table = table.set_column(3, "geometry", pa.array([shapely.to_wkb(across)], pa.binary()))
    path = tmp_path / "01WCN_20200615_20200615_v001.gpq"
    write_geoparquet(path, [table], (WIDTH,), PROVENANCE)

    boxes = [(179, 180), (-180, -179), (179, -179), (-10, 10), (170, -179.99)]
    assert [len(read_embeddings(path, bbox=(w, 60, e, 70))) for w, e in boxes] == [1, 1, 1, 0, 1]
    item = file_item(find_files(path)[0], href="", made=datetime.now(UTC))
    assert item["bbox"] == [179.98, 65.0, -179.96, 65.04]
    assert shapely.geometry.shape(item["geometry"]).equals(across)


def test_files_of_other_tiles_and_dates_are_not_opened(tmp_path: Path) -> None:
    kept = write(tmp_path, "27WXM", 0)
    (tmp_path / "28WDT_20200615_20210703_v001.gpq").write_bytes(b"no Parquet file")
    (tmp_path / "27WXM_20180101_20180101_v001.gpq").write_bytes(b"no Parquet file")

    frame = read_embeddings(tmp_path, tiles=["27WXM"], dates=(DAYS[0], DAYS[1]))

    assert len(frame) == len(geopandas.read_parquet(kept))
    with pytest.raises(DamagedFileError, match="27WXM_20180101_20180101_v001"):
        read_embeddings(tmp_path)


def test_row_groups_without_a_match_are_not_decoded(tmp_path: Path) -> None:
    table = rows("27WXN", 1)
    path = tmp_path / "27WXN_20200615_20210703_v001.gpq"
    pq.write_table(table, path, row_group_size=CHIPS, compression="none")
    data = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(1).column(2)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)  # the second date's vectors can't be decoded

    by_date = read_embeddings(path, dates=(DAYS[0], DAYS[0]))
    [facts] = footers(find_files(path))
    by_place = list(blocks(facts, ["source_url"], Selection(bbox=(100, 0, 101, 1))))

    np.testing.assert_array_equal(np.stack(by_date["embeddings"]), clay_like(2 * CHIPS, 1)[:CHIPS])
    assert by_place == []
    with pytest.raises((DamagedFileError, OSError)):
        read_embeddings(path)


def test_columns_without_vectors_read_no_vectors(folder: Path) -> None:
    frame = read_embeddings(folder, columns=["date"])

    assert list(frame.columns) == ["date", "geometry"]
    assert frame["date"].tolist() == oracle(folder)["date"].tolist()


def test_vectors_come_as_one_array_of_the_levels_shape(tmp_path: Path) -> None:
    write(tmp_path, "27WXN", 1, shape=(2, 2, 8), provenance=PROVENANCE | {"level": "patch"})

    frame, vectors = read_vectors(tmp_path)

    assert "embeddings" not in frame.columns
    np.testing.assert_array_equal(vectors, clay_like(2 * CHIPS, 1, 32).reshape(-1, 2, 2, 8))


def test_no_match_is_an_empty_frame_with_all_columns(folder: Path) -> None:
    frame = read_embeddings(folder, tiles=["01CCV"])
    _, vectors = read_vectors(folder, bbox=(100, 0, 101, 1))

    assert list(frame.columns) == ["source_url", "date", "embeddings", "geometry"]
    assert len(frame) == 0
    assert vectors.shape == (0, WIDTH)


@pytest.mark.parametrize("other", [{"model": "clay-v1.5"}, {"level": "cls"}, {"checkpoint_sha256": "d" * 64}])
def test_mixed_models_levels_and_checkpoints_are_refused_with_their_names(
    tmp_path: Path, other: dict[str, str]
) -> None:
    write(tmp_path, "27WXM", 0)
    write(tmp_path, "27WXN", 1, provenance=PROVENANCE | other)

    with pytest.raises(MixedEmbeddings, match=next(iter(other.values()))) as refusal:
        read_embeddings(tmp_path)

    assert "27WXN_20200615_20210703_v001.gpq" in str(refusal.value)
    assert len(read_embeddings(tmp_path, tiles=["27WXN"])) == 2 * CHIPS


def test_other_widths_are_refused_and_other_precisions_are_not(tmp_path: Path) -> None:
    write(tmp_path, "27WXM", 0)
    write(tmp_path, "27WXN", 1, provenance=PROVENANCE | {"precision": "bf16"})
    assert len(read_embeddings(tmp_path)) == 4 * CHIPS

    write(tmp_path, "27WXN", 1, shape=(1024,))
    with pytest.raises(MixedEmbeddings, match="shape"):
        read_embeddings(tmp_path)


def test_several_versions_of_a_tile_are_refused_unless_one_is_selected(tmp_path: Path) -> None:
    write(tmp_path, "27WXN", 1)
    write(tmp_path, "27WXN", 2, version=2)

    with pytest.raises(MixedEmbeddings, match="versions 1 and 2 of tile 27WXN"):
        read_embeddings(tmp_path)

    _, vectors = read_vectors(tmp_path, version=2)
    np.testing.assert_array_equal(vectors, clay_like(2 * CHIPS, 2))


def test_variable_size_lists_are_read_if_their_lengths_are_equal(tmp_path: Path) -> None:
    table = rows("27WXN", 1)
    lists = table["embeddings"].combine_chunks().cast(pa.list_(pa.float32()))
    pq.write_table(table.set_column(2, "embeddings", lists), tmp_path / "pandas.parquet")

    _, vectors = read_vectors(tmp_path)

    np.testing.assert_array_equal(vectors, clay_like(2 * CHIPS, 1))
    assert read_vectors(tmp_path, tiles=["27WXN"])[1].shape == (2 * CHIPS, WIDTH)
    assert len(read_vectors(tmp_path, tiles=["27WXM"])[1]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tiles": "27WXN"}, "a list of MGRS codes"),
        ({"tiles": ["nowhere"]}, "a list of MGRS codes"),
        ({"bbox": (0, 10, 1, 5)}, "west, south, east, north"),
        ({"dates": (DAYS[1], DAYS[0])}, "the first not after the last"),
        ({"columns": ["embedding"]}, "expected some of source_url"),
    ],
)
def test_invalid_arguments_are_refused(folder: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_embeddings(folder, **arguments)  # type: ignore[arg-type]


def test_folder_without_files_names_the_expected_ending(tmp_path: Path) -> None:
    with pytest.raises(NothingToRead, match=r"no file that ends in \.gpq"):
        read_embeddings(tmp_path)
    with pytest.raises(NothingToRead, match="empty list"):
        read_embeddings([])


def test_public_functions_import_neither_dagster_nor_torch() -> None:
    code = (
        "import sys; from clay_assets import read_embeddings, similar;"
        " print([name for name in ('torch', 'dagster') if name in sys.modules])"
    )

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"
