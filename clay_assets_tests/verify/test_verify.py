"""`clay verify` on outputs with one thing wrong at a time, made by the package's own writers."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clay_assets import embed_tile
from clay_assets.cli import main
from clay_assets.publishing import read_provenance, write_geoparquet
from clay_assets.settings import DEFAULTS
from clay_assets.state import TileStores
from clay_assets.storage import Store
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels
from clay_assets_tests.s3_server import S3Bucket
from clay_assets_tests.tile_scene import FINGERPRINT, MadeUp, finish, know_checkpoint, put_chips

TILES = ("27WXM", "27WXN", "27WXP")


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TileStores:
    """Three published tiles at the default places under the working directory; nothing is set."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("CLAY_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stores = TileStores(*(Store(f"data/{name}") for name in ("chips", "work", "embeddings")))
    checkpoint = tmp_path / DEFAULTS["CLAY_CHECKPOINT"]
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    know_checkpoint(stores.work, Store(checkpoint))
    Path("tiles.txt").write_text("\n".join(TILES))
    for tile in TILES:
        finish(stores, tile)
    return stores


def path_of(tile: str) -> Path:
    """A tile's published file."""
    (path,) = Path("data/embeddings").glob(f"{tile}_*.gpq")
    return path


def verify(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and the JSON that was printed."""
    status = main(["verify", "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def rewritten(tile: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a tile's file again with other rows and the same provenance."""
    path = path_of(tile)
    table = pq.read_table(path)
    shape = tuple(table.schema.field("embeddings").type.shape)
    plain = table.set_column(2, "embeddings", table["embeddings"].combine_chunks().storage)
    write_geoparquet(path, [change(plain.replace_schema_metadata())], shape, read_provenance(path))


def put_twice(_: TileStores) -> None:
    path = path_of("27WXN")
    path.with_name(path.name.replace("20200615_v", "20200616_v")).write_bytes(path.read_bytes())


def embedded_with_another_checkpoint(stores: TileStores) -> None:
    path_of("27WXN").unlink()
    finish(stores, "27WXN", MadeUp(fingerprint=replace(FINGERPRINT, checkpoint_sha256="d" * 64)))


def damage_a_page() -> None:
    path = path_of("27WXN")
    group = pq.read_metadata(path).row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    start = next(chunk.data_page_offset for chunk in chunks if chunk.path_in_schema.startswith("embeddings"))
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"\xff" * 20 + data[start + 20 :])


def test_an_output_as_called_for_has_no_fault(stores: TileStores, capsys: pytest.CaptureFixture[str]) -> None:
    put_chips(stores, "27WXQ", [1])
    MadeUp(skipped=1).store(stores, "27WXQ")  # none of its chips can be used
    Path("tiles.txt").write_text("\n".join([*TILES, "27WXQ", "28WDS"]))  # and the last has none

    for extra in ([], ["--deep"]):
        status, answer = verify(capsys, *extra)
        assert (status, answer["ok"], answer["faults"]) == (0, True, [])
        assert answer["counts"] | {"bytes": 0} == {
            "tiles": 5, "empty": 1, "unusable": 1, "chips": 10, "files": 3, "rows": 9, "skipped": 0,
            "bytes": 0,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("break_it", "kind", "said"),
    [
        (lambda _: path_of("27WXN").unlink(), "missing tile", "3 chips, embedded, not published"),
        (lambda stores: put_chips(stores, "27WXN", [4]), "missing chips", "from 3 chips, the bucket has 4"),
        (lambda _: rewritten("27WXN", lambda rows: rows.slice(1)), "missing chips", "2 rows, expected 3"),
        (lambda stores: put_chips(stores, "27WXN", [1], b"other"), "stale", "3 chips, the bucket has 3, or"),
        (
            lambda stores: stores.chips.delete(stores.chips.list("27WXN/")[0]),
            "stale", "from 3 chips, the bucket has 2",
        ),
        (put_twice, "several files", "2 files of one version, expected one"),
        (lambda _: path_of("27WXN").write_bytes(b"no Parquet"), "damaged", "can't be read as Parquet"),
        (lambda _: path_of("27WXN").write_bytes(path_of("27WXN").read_bytes()[:-9]), "damaged", "can't be"),
        (lambda _: pq.write_table(pa.table({"a": [1]}), path_of("27WXN")), "damaged", "The columns are a;"),
    ],
    ids=[
        "no file", "a new chip", "a row less", "a changed chip", "a removed chip", "two files",
        "another format", "cut short", "other columns",
    ],
)  # fmt: skip
def test_a_fault_is_named_from_footers_and_listings_alone(
    stores: TileStores,
    capsys: pytest.CaptureFixture[str],
    break_it: Callable[[TileStores], None],
    kind: str,
    said: str,
) -> None:
    break_it(stores)
    status, answer = verify(capsys)
    assert status == 1
    assert {(fault["kind"], fault["tile"]) for fault in answer["faults"]} == {(kind, "27WXN")}
    assert said in answer["faults"][0]["what"]


def test_a_tile_that_nobody_embedded_is_missing(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    put_chips(stores, "27WXQ", [1, 2])
    Path("tiles.txt").write_text("\n".join([*TILES, "27WXQ"]))
    status, answer = verify(capsys)
    assert status == 1
    assert answer["faults"] == [
        {"kind": "missing tile", "tile": "27WXQ", "what": "2 chips, not embedded", "url": ""}
    ]


def test_files_without_a_tile_are_orphans(stores: TileStores, capsys: pytest.CaptureFixture[str]) -> None:
    for chip in stores.chips.list("27WXM/"):
        stores.chips.delete(chip)
    Path("tiles.txt").write_text("27WXM\n27WXP")
    status, answer = verify(capsys)
    assert status == 1
    assert {(fault["kind"], fault["tile"]) for fault in answer["faults"]} == {
        ("orphaned", "27WXM"),
        ("orphaned", "27WXN"),
    }


def test_a_file_of_another_checkpoint_is_stale_and_mixes_the_version(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    embedded_with_another_checkpoint(stores)
    status, answer = verify(capsys)
    assert status == 1
    assert [(fault["kind"], fault["tile"]) for fault in answer["faults"]] == [
        ("stale", "27WXN"),
        ("mixed models", ""),
    ]
    stale, mixed = (fault["what"] for fault in answer["faults"])
    assert stale == f"checkpoint_sha256 is {'d' * 12}, expected {'c' * 12}"
    assert mixed.startswith("2 files of clay-v0-small mean cccccccccccc, 1 files of clay-v0-small mean dddd")


@pytest.mark.usefixtures("stores")
def test_only_deep_reading_sees_a_damaged_page(capsys: pytest.CaptureFixture[str]) -> None:
    damage_a_page()
    assert verify(capsys)[0] == 0
    status, answer = verify(capsys, "--deep")
    assert status == 1
    assert [(fault["kind"], fault["tile"]) for fault in answer["faults"]] == [("damaged", "27WXN")]


@pytest.mark.usefixtures("stores")
def test_deep_reading_looks_for_each_row_in_the_bucket(capsys: pytest.CaptureFixture[str]) -> None:
    def renamed(rows: pa.Table) -> pa.Table:
        urls = [url.replace("_0003.tif", "_0009.tif") for url in rows["source_url"].to_pylist()]
        return rows.set_column(0, "source_url", pa.array(urls))

    rewritten("27WXN", renamed)
    assert verify(capsys)[0] == 0
    status, answer = verify(capsys, "--deep")
    assert status == 1
    (fault,) = answer["faults"]
    assert (fault["kind"], "1 rows of no chip of the bucket" in fault["what"]) == ("stale", True)


@pytest.mark.usefixtures("stores")
def test_the_table_names_each_fault_under_its_count(capsys: pytest.CaptureFixture[str]) -> None:
    name = path_of("27WXN").name
    path_of("27WXN").write_bytes(b"")
    path_of("27WXP").unlink()
    assert main(["verify"]) == 1
    text = capsys.readouterr().out
    assert "3 tiles (0 without chips, 0 without a usable one), 9 chips" in text
    assert "missing tile         1  has chips and no published file" in text
    assert f"  damaged: {name}: The file can't be read as Parquet" in text
    assert text.endswith("2 faults\n")


@pytest.mark.usefixtures("stores")
def test_another_place_is_verified_when_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/embeddings").rename("elsewhere")
    assert verify(capsys, "--where", "elsewhere")[0] == 0
    status, answer = verify(capsys)
    assert status == 1
    assert [fault["kind"] for fault in answer["faults"]] == ["missing tile"] * 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tiles", "none.txt"], "no tile manifest at"),
        (["--where", "s3://no-such-bucket-of-ours/x"], "clay: s3://no-such-bucket-of-ours"),
    ],
)
@pytest.mark.usefixtures("stores")
def test_no_answer_is_exit_status_2(
    bucket: S3Bucket,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    assert main(["verify", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


@pytest.fixture
def embedded(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tile of four chips, embedded by a real network; one of them cannot be used."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 3):
        pixels = np.roll(chip_pixels(), 37 * number, axis=1)
        path = tmp_path / "data/chips/27WXN/2020-06-15" / chip_name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chip_bytes(pixels))
    (tmp_path / "data/chips/27WXN/2020-06-15" / chip_name(4)).write_bytes(b"Not Found")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CLAY_CHECKPOINT", str(tiny_checkpoint))
    monkeypatch.setenv("CLAY_PRECISION", "fp32")
    monkeypatch.setenv("CLAY_ALLOW_UNTRAINED", "1")
    Path("tiles.txt").write_text("27WXN")
    embed_tile(
        "27WXN",
        chips="data/chips",
        checkpoint=tiny_checkpoint,
        output="data/embeddings",
        precision="fp32",
        allow_untrained=True,
    )
    return path_of("27WXN")


@pytest.mark.usefixtures("embedded")
def test_vectors_that_a_sample_of_chips_gives_again_pass(capsys: pytest.CaptureFixture[str]) -> None:
    status, answer = verify(capsys, "--recompute", "10")
    assert (status, answer["faults"]) == (0, [])
    assert answer["recomputed"]["chips"] == 3
    assert answer["recomputed"]["largest"] < 1e-5


@pytest.mark.usefixtures("embedded")
def test_vectors_of_another_chip_do_not_pass(capsys: pytest.CaptureFixture[str]) -> None:
    def swapped(rows: pa.Table) -> pa.Table:
        return rows.set_column(2, "embeddings", rows["embeddings"].take([1, 0, 2]))

    rewritten("27WXN", swapped)
    assert verify(capsys)[0] == 0
    status, answer = verify(capsys, "--recompute", "10")
    assert status == 1
    assert [fault["kind"] for fault in answer["faults"]] == ["other vectors"] * 2
    assert all("expected at most 0.001" in fault["what"] for fault in answer["faults"])
