"""`similar` against NumPy on the same vectors, in float64."""

import shutil
import tracemalloc
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from numpy.typing import NDArray

from clay_assets import similar
from clay_assets.export.dataset import export
from clay_assets.parquet import DamagedFileError
from clay_assets.publishing.writer import write_geoparquet
from clay_assets.reading import MixedEmbeddings, NothingToRead, read_vectors, scan
from clay_assets.reading.embeddings import chosen_files
from clay_assets.reading.selection import Selection
from clay_assets.search.examples import ExampleMissing, Query, find_examples
from clay_assets.search.similarity import best
from clay_assets.storage import Store
from clay_assets_tests.publishing.geoparquet_rows import with_column
from clay_assets_tests.reading.collection import (
    CHIPS,
    DAYS,
    PROVENANCE,
    WIDTH,
    chip_url,
    rows,
    squares,
    write,
    write_collection,
)
from clay_assets_tests.s3_server import S3Bucket

Vectors = NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("similar") / "embeddings")


def test_among_equally_similar_rows_the_earlier_come_first() -> None:
    pieces = [
        pa.table({"source_url": names, "similarity": similarity})
        for names, similarity in ((["a", "b"], [0.5, 0.5]), (["c", "d"], [0.9, 0.5]))
    ]
    assert best(pieces, 3)["source_url"].to_pylist() == ["c", "a", "b"]


def units(vectors: NDArray[np.float32], mean: Vectors | float) -> Vectors:
    centred = vectors.astype(np.float64) - mean
    unit: Vectors = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit


def oracle(
    folder: Path, to: list[str], unlike: list[str], k: int, *, raw: bool = False
) -> tuple[list[tuple[str, date]], Vectors]:
    """The k best rows and their similarity."""
    frame, vectors = read_vectors(folder)
    vectors = vectors.reshape(len(frame), -1, vectors.shape[-1]).mean(axis=1)
    unit = units(vectors, 0.0 if raw else vectors.mean(axis=0, dtype=np.float64))
    good, bad = frame["source_url"].isin(to).to_numpy(), frame["source_url"].isin(unlike).to_numpy()
    query = unit[good].mean(axis=0) - (unit[bad].mean(axis=0) if bad.any() else 0)
    similarity = unit @ (query / np.linalg.norm(query))
    similarity[good | bad] = -np.inf
    order = np.argsort(-similarity)[:k]
    return [(frame["source_url"][row], frame["date"][row]) for row in order], similarity[order]


A, B, C = (chip_url("27WXM", DAYS[0], 3), chip_url("27WXN", DAYS[1], 7), chip_url("27WXM", DAYS[1], 11))


@pytest.mark.parametrize("raw", [False, True], ids=["centred", "raw"])
@pytest.mark.parametrize(
    ("to", "unlike"), [([A], []), ([A, B], []), ([A], [C]), ([A, B], [C])], ids=["1+0", "2+0", "1+1", "2+1"]
)
def test_rows_found_equal_those_of_numpy(folder: Path, to: list[str], unlike: list[str], raw: bool) -> None:
    found = similar(folder, to=to, unlike=unlike, k=15, raw=raw)

    expected, similarity = oracle(folder, to, unlike, 15, raw=raw)
    assert list(zip(found["source_url"], found["date"], strict=True)) == expected
    np.testing.assert_allclose(found["similarity"], similarity, atol=1e-6)
    assert found.attrs["examples"] == [*to, *unlike]


def test_small_blocks_and_files_without_a_mean_change_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = similar(folder, to=A)
    for path in folder.iterdir():
        pq.write_table(pq.read_table(path), tmp_path / path.name, row_group_size=5)
    monkeypatch.setattr(scan, "BLOCK_BYTES", 3 * 48 * 4)
    monkeypatch.setattr(scan, "WHOLE_BYTES", 0)

    found = similar(tmp_path, to=A)

    assert found["source_url"].tolist() == expected["source_url"].tolist()
    np.testing.assert_allclose(found["similarity"], expected["similarity"], atol=1e-6)


def test_bucket_is_searched_like_a_folder(folder: Path, bucket: S3Bucket) -> None:
    for path in folder.iterdir():
        bucket.store("embeddings").put(path.name, path)

    found = similar(bucket.uri("embeddings"), to=A, k=5, options=bucket.options)

    assert found["source_url"].tolist() == similar(folder, to=A, k=5)["source_url"].tolist()


def test_file_name_is_accepted_for_the_url(folder: Path) -> None:
    assert similar(folder, to=A.rpartition("/")[2]).equals(similar(folder, to=[A]))


def test_place_selects_the_chip_that_covers_it_on_the_latest_or_given_day(folder: Path) -> None:
    middle = shapely.centroid(squares("27WXN")[6])

    latest = similar(folder, at=(middle.x, middle.y))
    first = similar(folder, at=[(middle.x, middle.y)], date=DAYS[0])

    assert latest.attrs["examples"] == [chip_url("27WXN", DAYS[1], 7)]
    assert first.attrs["examples"] == [chip_url("27WXN", DAYS[0], 7)]
    assert first["source_url"].tolist() == [
        url for url, _ in oracle(folder, [chip_url("27WXN", DAYS[0], 7)], [], 10)[0]
    ]


def test_all_windows_of_a_chip_are_its_examples(tmp_path: Path) -> None:
    batch = rows("27WXN", 1).combine_chunks().to_batches()[0]
    urls = batch["source_url"].to_pylist()
    twice = with_column(batch, "source_url", batch["source_url"].take(np.arange(2 * CHIPS) // 2))
    path = tmp_path / "27WXN_20200615_20210703_v001.gpq"
    write_geoparquet(path, [twice], (48,), PROVENANCE)

    found = similar(tmp_path, to=urls[4], k=4)

    expected, similarity = oracle(tmp_path, [urls[4]], [], 4)
    assert list(zip(found["source_url"], found["date"], strict=True)) == expected
    np.testing.assert_allclose(found["similarity"], similarity, atol=1e-6)


def test_levels_with_places_are_compared_by_their_mean(tmp_path: Path) -> None:
    write(tmp_path, "27WXM", 0, shape=(2, 2, 16))
    write(tmp_path, "27WXN", 1, shape=(2, 2, 16))

    found = similar(tmp_path, to=A, k=6)

    expected, similarity = oracle(tmp_path, [A], [], 6)
    assert list(zip(found["source_url"], found["date"], strict=True)) == expected
    np.testing.assert_allclose(found["similarity"], similarity, atol=1e-6)


def test_k_beyond_the_collection_finds_all_others(folder: Path) -> None:
    assert len(similar(folder, to=A, k=1000)) == 4 * CHIPS - 1


def test_missing_examples_are_all_named(folder: Path) -> None:
    with pytest.raises(ExampleMissing, match=r"of nothing\.tif, 100,10 in 2 files"):
        similar(folder, to=["nothing.tif", A], at=(100, 10))
    with pytest.raises(ExampleMissing, match="on 2019-01-01"):
        similar(folder, to=A, date=date(2019, 1, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no example"),
        ({"to": A, "k": 0}, "k 0"),
        ({"at": (0, 91)}, "longitude, latitude"),
        ({"to": A, "unlike": A}, "without a direction"),
    ],
)
def test_invalid_searches_are_refused(folder: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similar(folder, **arguments)  # type: ignore[arg-type]


def test_invalid_selection_of_the_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="a list of MGRS codes"):
        Query(to=[A], tiles="27WXM")


def test_collections_of_two_models_are_not_searched(tmp_path: Path) -> None:
    write(tmp_path, "27WXM", 0)
    write(tmp_path, "27WXN", 1, provenance=PROVENANCE | {"model": "clay-v1.5"})

    with pytest.raises(MixedEmbeddings):
        similar(tmp_path, to=A)


def test_lists_are_searched_and_exported_if_the_first_file_has_no_rows(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        table = pq.read_table(path)
        lists = table["embeddings"].combine_chunks().storage.cast(pa.list_(pa.float32()))
        pq.write_table(table.set_column(2, "embeddings", lists), tmp_path / path.name)
    first = min(tmp_path.iterdir())
    pq.write_table(pq.read_table(first).slice(0, 0), first)

    assert len(similar(tmp_path, to=B, k=5)) == 5
    assert export(tmp_path, Store(tmp_path.parent / "copy")).rows == 2 * CHIPS
    with pytest.raises(NothingToRead, match="got no rows in"):
        similar(first, to=B)


def test_rows_of_other_tiles_are_not_read_for_an_example(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        shutil.copy(path, tmp_path)
    other = tmp_path / "27WXN_20200615_20210703_v001.gpq"
    data = other.read_bytes()
    other.write_bytes(
        data[:4] + b"\xff" * (len(data) // 3) + data[4 + len(data) // 3 :]
    )  # the footer is whole
    files = chosen_files(tmp_path, Selection(), None)
    middle = shapely.centroid(squares("27WXM")[2])

    for query in (Query(to=[A], day=DAYS[0]), Query(at=[(middle.x, middle.y)], day=DAYS[0])):
        found, _ = find_examples(files, query, WIDTH)
        assert found.rows["source_url"].to_pylist() == [A]

    with pytest.raises(DamagedFileError):  # a name without a tile may be in any file
        find_examples(files, Query(to=["chip.tif"]), WIDTH)


def test_candidates_are_held_as_the_means_of_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = tuple(DAYS[0] + timedelta(number) for number in range(20))
    write(tmp_path, "27WXN", 1, shape=(16, 16, 16), days=days)
    files = chosen_files(tmp_path, Selection(), None)
    query = Query(to=[chip_url("27WXN", day, number) for day in days for number in range(1, CHIPS + 1)])
    monkeypatch.setattr(scan, "BLOCK_BYTES", 2**16)

    tracemalloc.start()
    found, _ = find_examples(files, query, 16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found.vectors.shape == (20 * CHIPS, 16)
    assert peak < 2**20  # the vectors of all places are 4 MB
