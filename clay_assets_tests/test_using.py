"""Runs each block of docs/using.md and compares its variables with the files that it reads."""

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from clay_assets import similar
from clay_assets.cli import main
from clay_assets.export.dataset import export
from clay_assets.reading import read_vectors
from clay_assets.stac.catalog import write_collection as write_catalog
from clay_assets.storage import Store
from clay_assets_tests.reading.collection import CHIPS, WIDTH, clay_like, squares, write_collection
from clay_assets_tests.s3_server import S3Bucket, client

USING = (Path(__file__).parents[1] / "docs" / "using.md").read_text()
BLOCKS = {
    block.splitlines()[0].removeprefix("# "): block
    for block in re.findall(r"```python\n(.*?)```", USING, flags=re.DOTALL)
}
COMMANDS = re.findall(r"^    (clay .*)$", USING, flags=re.MULTILINE)

Names = dict[str, Any]
VECTORS = np.concatenate([clay_like(2 * CHIPS, 0), clay_like(2 * CHIPS, 1)])
BOX = shapely.box(-18.75, 64.9, -18.6, 65.05)
EXAMPLE = "claytile_27WXM_20200615_v02_0003.tif"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> tuple[Path, S3Bucket]:
    """A folder with the files that the document names, and a bucket with the same embeddings."""
    root = tmp_path_factory.mktemp("using")
    folder = write_collection(root / "data" / "embeddings")
    write_catalog(Store(folder), Store(root / "data" / "stac"), version=1)
    export(folder, Store(root / "data" / "shared"), dtype="uint8")
    bucket = S3Bucket(s3_server, "my-embeddings")
    client(s3_server).create_bucket(Bucket=bucket.name)
    for path in folder.iterdir():
        bucket.store("clay").put(path.name, path)
    return root, bucket


@pytest.fixture
def there(files: tuple[Path, S3Bucket], monkeypatch: pytest.MonkeyPatch, no_settings: None) -> Path:  # noqa: ARG001
    """The folder as the working directory, and an environment that reaches the bucket."""
    root, bucket = files
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(root)
    return root


def stacked(frame: Any) -> Any:  # noqa: ANN401 - a frame of one library or another
    return np.stack(frame["embeddings"].tolist())


def reads_all(names: Names) -> None:
    np.testing.assert_array_equal(stacked(names["all_tiles"]), VECTORS)
    assert names["all_tiles"].crs.to_authority() == ("OGC", "CRS84")


def reads_files(names: Names) -> None:
    reads_all(names)
    np.testing.assert_array_equal(stacked(names["one"]), VECTORS[2 * CHIPS :])
    np.testing.assert_array_equal(stacked(names["two"]), VECTORS)


def reads_samples(names: Names) -> None:
    vector, day, place = names["samples"][5]
    np.testing.assert_array_equal(vector, VECTORS[5])
    assert day == date(2020, 6, 15)
    assert shapely.Point(place).within(squares("27WXM")[5])
    assert len(names["samples"]) == len(VECTORS)


def reads_later_rows(names: Names) -> None:
    later = np.concatenate([VECTORS[CHIPS : 2 * CHIPS], VECTORS[3 * CHIPS :]])
    np.testing.assert_array_equal(names["vectors"], later)
    assert names["model"] == "clay-v0-small"


def reads_by_polars(names: Names) -> None:
    np.testing.assert_array_equal(np.stack(list(names["vectors"])), VECTORS)
    assert names["frame"]["date"][0] == date(2020, 6, 15)


def reads_by_duckdb(names: Names) -> None:
    assert len(names["rows"]) == len(VECTORS)
    np.testing.assert_array_equal(np.float32(names["rows"][0][2]), VECTORS[0, :3])


def reads_a_box(names: Names) -> None:
    inside = shapely.intersects(squares("27WXN"), BOX)
    assert 0 < len(names["frame"]) == inside.sum() < CHIPS
    np.testing.assert_array_equal(stacked(names["frame"]), VECTORS[3 * CHIPS :][inside])
    np.testing.assert_array_equal(names["vectors"], VECTORS)


def finds(names: Names) -> None:
    assert len(names["found"]) == 5
    assert names["found"]["similarity"].is_monotonic_decreasing


def is_like_similar(urls: list[str], scores: list[float]) -> None:
    expected = similar("data/embeddings", to=EXAMPLE, k=5)
    assert urls[0].endswith(EXAMPLE)
    assert urls[1:] == expected["source_url"].tolist()
    np.testing.assert_allclose(scores[1:], expected["similarity"], atol=1e-5)


def finds_by_duckdb(names: Names) -> None:
    is_like_similar([row[0] for row in names["nearest"]], [row[2] for row in names["nearest"]])


def finds_by_lancedb(names: Names) -> None:
    rows = names["nearest"]
    is_like_similar([row["source_url"] for row in rows], [1 - row["_distance"] for row in rows])


def reads_the_catalog(names: Names) -> None:
    assert (
        Path(names["embeddings"]).resolve()
        == Path("data/embeddings/27WXN_20200615_20210703_v001.gpq").resolve()
    )
    assert names["as_table"]["id"].tolist() == sorted(names["items"])


def reads_an_export(names: Names) -> None:
    inside = shapely.intersects(np.concatenate([squares("27WXM"), squares("27WXN")]), BOX)
    assert len(names["rows"]) == 2 * inside.sum()
    assert set(names["rows"]["source_url"]) <= set(names["near"]["source_url"])  # by bounds, which are wider
    original, vectors = read_vectors("data/embeddings")
    places = [original["source_url"].tolist().index(url) for url in names["rows"]["source_url"]]
    np.testing.assert_allclose(names["vectors"], vectors[places], atol=0.01)
    assert names["vectors"].shape[1] == WIDTH


CHECKS: dict[str, Callable[[Names], None]] = {
    "geopandas: a file, a folder, a list": reads_files,
    "geopandas: a bucket": reads_all,
    "geopandas: a bucket through s3fs": reads_all,
    "a vector, a day and a place per row": reads_samples,
    "pyarrow: some columns of some rows": reads_later_rows,
    "polars": reads_by_polars,
    "DuckDB": reads_by_duckdb,
    "read_embeddings: tiles, a box, dates": reads_a_box,
    "similar": finds,
    "DuckDB: similarity": finds_by_duckdb,
    "LanceDB": finds_by_lancedb,
    "STAC": reads_the_catalog,
    "an export: rows of one place": reads_an_export,
}


def test_every_block_has_a_check() -> None:
    assert list(BLOCKS) == list(CHECKS)


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("title", BLOCKS)
def test_a_block_gives_the_documented_result(title: str) -> None:
    names: Names = {}
    exec(compile(BLOCKS[title], title, "exec"), names)  # noqa: S102 - this project's document

    CHECKS[title](names)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_unchanged(there: Path, command: str) -> None:
    assert main(command.split()[1:]) == 0

    if "--picture" in command:
        assert (there / "similar.png").read_bytes()[:4] == b"\x89PNG"
