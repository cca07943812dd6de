"""`clay verify` on outputs with one fault at a time, written by the package's own writers."""

import json
import os
import shutil
import subprocess
import sys
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
from clay_assets.publishing.schema import read_provenance
from clay_assets.publishing.versions import published_files
from clay_assets.publishing.writer import write_geoparquet
from clay_assets.settings import Settings
from clay_assets.state import TileStores
from clay_assets.storage import Store, StoredObject
from clay_assets.verify import check
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
    checkpoint = tmp_path / Settings().checkpoint
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    know_checkpoint(stores.work, Store(checkpoint))
    Path("tiles.txt").write_text("\n".join(TILES))
    for tile in TILES:
        finish(stores, tile)
    return stores


def path_of(tile: str, folder: str | Path = "data/embeddings") -> Path:
    """A tile's published file."""
    (path,) = Path(folder).glob(f"{tile}_*.gpq")
    return path


def verify(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and the JSON that was printed."""
    status = main(["verify", "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Writes a file again with other rows and the same provenance."""
    table = pq.read_table(path)
    shape = tuple(table.schema.field("embeddings").type.shape)
    plain = table.set_column(2, "embeddings", table["embeddings"].combine_chunks().storage)
    write_geoparquet(path, [change(plain.replace_schema_metadata())], shape, read_provenance(path))


def rename_chip(rows: pa.Table) -> pa.Table:
    """Rows of which one names a chip that the bucket does not have."""
    urls = [url.replace("_0003.tif", "_0009.tif") for url in rows["source_url"].to_pylist()]
    return rows.set_column(0, "source_url", pa.array(urls))


def put_twice(_: TileStores) -> None:
    path = path_of("27WXN")
    path.with_name(path.name.replace("20200615_v", "20200616_v")).write_bytes(path.read_bytes())


def embedded_with_another_checkpoint(stores: TileStores) -> None:
    path_of("27WXN").unlink()
    finish(stores, "27WXN", MadeUp(fingerprint=replace(FINGERPRINT, checkpoint_sha256="d" * 64)))


def damage_page(path: Path) -> None:
    group = pq.read_metadata(path).row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    start = next(chunk.data_page_offset for chunk in chunks if chunk.path_in_schema.startswith("embeddings"))
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"\xff" * 20 + data[start + 20 :])


def test_output_that_matches_the_bucket_has_no_faults(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    put_chips(stores, "27WXQ", [1])
    MadeUp(skipped=1).store(stores, "27WXQ")  # none of its chips can be used
    Path("tiles.txt").write_text("\n".join([*TILES, "27WXQ", "28WDS"]))  # and the last tile has no chips

    for extra in ([], ["--deep"]):
        status, answer = verify(capsys, *extra)
        assert (status, answer["ok"], answer["faults"]) == (0, True, [])
        assert answer["counts"] | {"bytes": 0} == {
            "tiles": 5, "empty": 1, "unusable": 1, "chips": 10, "files": 3, "rows": 9, "skipped": 0,
            "bytes": 0,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "kind", "phrase"),
    [
        (lambda _: path_of("27WXN").unlink(), "missing tile", "3 chips, embedded, not published"),
        (lambda stores: put_chips(stores, "27WXN", [4]), "missing chips", "from 3 chips, the bucket has 4"),
        (
            lambda _: rewrite(path_of("27WXN"), lambda rows: rows.slice(1)),
            "missing chips", "2 rows, expected 3",
        ),
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
def test_fault_is_found_from_footers_and_listings(
    stores: TileStores,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[TileStores], None],
    kind: str,
    phrase: str,
) -> None:
    damage(stores)
    status, answer = verify(capsys)
    assert status == 1
    assert {(fault["kind"], fault["tile"]) for fault in answer["faults"]} == {(kind, "27WXN")}
    assert phrase in answer["faults"][0]["what"]


def test_tile_with_chips_and_no_results_is_missing(
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


def test_file_of_another_checkpoint_is_stale_and_mixes_the_version(
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
def test_damaged_page_is_found_only_by_reading_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    damage_page(path_of("27WXN"))
    assert verify(capsys)[0] == 0
    status, answer = verify(capsys, "--deep")
    assert status == 1
    assert [(fault["kind"], fault["tile"]) for fault in answer["faults"]] == [("damaged", "27WXN")]


@pytest.mark.usefixtures("stores")
def test_row_of_a_chip_outside_the_bucket_is_found_by_reading_every_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rewrite(path_of("27WXN"), rename_chip)
    assert verify(capsys)[0] == 0
    status, answer = verify(capsys, "--deep")
    assert status == 1
    (fault,) = answer["faults"]
    assert (fault["kind"], "1 chips with rows are not in the bucket" in fault["what"]) == ("stale", True)


@pytest.mark.usefixtures("stores")
def test_text_counts_the_kinds_and_lists_the_faults(capsys: pytest.CaptureFixture[str]) -> None:
    name = path_of("27WXN").name
    path_of("27WXN").write_bytes(b"")
    path_of("27WXP").unlink()
    assert main(["verify"]) == 1
    text = capsys.readouterr().out
    assert "3 tiles (0 without chips, 0 without a usable one), 9 chips" in text
    assert "missing tile         1  the tile has chips and no published file" in text
    assert f"  damaged: {name}: The file can't be read as Parquet" in text
    assert text.endswith("2 faults\n")


@pytest.mark.usefixtures("stores")
def test_command_loads_no_torch_unless_it_recomputes() -> None:
    program = (
        "import sys; from clay_assets.cli import main; status = main(['verify', '--deep']);"
        " print([name for name in ('torch', 'dagster') if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


@pytest.mark.usefixtures("stores")
def test_where_names_another_output(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/embeddings").rename("elsewhere")
    assert verify(capsys, "--where", "elsewhere")[0] == 0
    status, answer = verify(capsys)
    assert status == 1
    assert [fault["kind"] for fault in answer["faults"]] == ["missing tile"] * 3


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["--tiles", "none.txt"], "no tile manifest at"),
        (["--where", "s3://no-such-bucket-of-ours/x"], "clay: s3://no-such-bucket-of-ours"),
        ([], "such as clay-small-70MT-1100T-10E.ckpt"),
    ],
    ids=["no manifest", "no bucket", "damaged checkpoint"],
)
@pytest.mark.usefixtures("stores")
def test_exit_status_is_2_without_an_answer(
    bucket: S3Bucket,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    phrase: str,
) -> None:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    if not arguments:
        Path(Settings().checkpoint).write_bytes(b"other weights")
    assert main(["verify", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert phrase in err


def test_file_replaced_after_the_listing_is_read_under_its_new_name(
    stores: TileStores, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_and_replace(output: Store, version: int, tile: str = "") -> dict[str, list[StoredObject]]:
        found = published_files(output, version, tile)
        if not tile:
            path = path_of("27WXN")
            path.rename(path.with_name(path.name.replace("_20200615_v", "_20200616_v")))
        return found

    monkeypatch.setattr(check, "published_files", list_and_replace)
    status, answer = verify(capsys)
    assert (status, answer["faults"], answer["counts"]["files"]) == (0, [], 3)
    assert path_of("27WXN").name in [found.url.rpartition("/")[2] for found in stores.output.list()]


def test_text_lists_the_first_twenty_faults_of_a_kind_and_json_all(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = [f"28W{column}S" for column in "ABCDEFGHJKLMNPQRSTUVWXY"]
    for tile in tiles:
        put_chips(stores, tile, [1])
    Path("others.txt").write_text("\n".join([*TILES, *tiles]))
    assert main(["verify", "--tiles", "others.txt"]) == 1
    text = capsys.readouterr().out
    assert text.count("missing tile: 28W") == 20
    assert "missing tile: 3 more; --json lists all" in text
    assert len(verify(capsys, "--tiles", "others.txt")[1]["faults"]) == 23


def test_negative_sample_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["verify", "--recompute", "-1"])
    assert "expected a whole number from 0" in capsys.readouterr().err


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A working directory with a tile of four chips, embedded by a real network; one chip is unreadable."""
    root = tmp_path_factory.mktemp("embedded")
    folder = root / "data/chips/27WXN/2020-06-15"
    folder.mkdir(parents=True)
    for number in (1, 2, 3):
        (folder / chip_name(number)).write_bytes(chip_bytes(np.roll(chip_pixels(), 37 * number, axis=1)))
    (folder / chip_name(4)).write_bytes(b"Not Found")
    (root / "tiles.txt").write_text("27WXN")
    embed_tile(
        "27WXN",
        chips=root / "data/chips",
        checkpoint=tiny_checkpoint,
        output=root / "data/embeddings",
        work=root / "data/work",
        precision="fp32",
        allow_untrained=True,
    )
    return root


@pytest.fixture
def published(embedded: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the published file; the other settings are those of `embedded`."""
    monkeypatch.chdir(embedded)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CLAY_CHECKPOINT", str(tiny_checkpoint))
    monkeypatch.setenv("CLAY_PRECISION", "fp32")
    monkeypatch.setenv("CLAY_ALLOW_UNTRAINED", "1")
    shutil.copytree("data/embeddings", tmp_path / "copy")
    return path_of("27WXN", tmp_path / "copy")


def recompute(capsys: pytest.CaptureFixture[str], published: Path) -> tuple[int, dict[str, Any]]:
    return verify(capsys, "--where", str(published.parent), "--recompute", "10")


def test_chips_embedded_again_have_the_published_vectors(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, answer = recompute(capsys, published)
    assert (status, answer["faults"]) == (0, [])
    assert answer["recomputed"]["chips"] == 3
    assert answer["recomputed"]["largest"] < 1e-5


def test_vectors_of_other_chips_are_found(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def swap(rows: pa.Table) -> pa.Table:
        return rows.set_column(2, "embeddings", rows["embeddings"].take([1, 0, 2]))

    rewrite(published, swap)
    assert verify(capsys, "--where", str(published.parent))[0] == 0
    status, answer = recompute(capsys, published)
    assert status == 1
    assert [fault["kind"] for fault in answer["faults"]] == ["other vectors"] * 2
    assert all("expected at most 0.001" in fault["what"] for fault in answer["faults"])


@pytest.mark.parametrize(
    ("damage", "kind", "phrase"),
    [
        (damage_page, "damaged", "can't be read as Parquet"),
        (lambda path: rewrite(path, rename_chip), "stale", "_0009.tif has a row and is not in the bucket"),
    ],
    ids=["a damaged page", "a chip outside the bucket"],
)
def test_file_whose_rows_cannot_be_compared_is_a_fault(
    published: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    kind: str,
    phrase: str,
) -> None:
    damage(published)
    status, answer = recompute(capsys, published)
    assert status == 1
    assert [fault["kind"] for fault in answer["faults"]] == [kind]
    assert phrase in answer["faults"][0]["what"]


def test_chip_damaged_in_the_bucket_is_a_fault(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chip = Path("data/chips/27WXN/2020-06-15") / chip_name(2)
    data, times = chip.read_bytes(), chip.stat()
    try:
        chip.write_bytes(data[:400] + bytes(len(data) - 400))  # of the same size, time and so ETag
        os.utime(chip, ns=(times.st_atime_ns, times.st_mtime_ns))
        status, answer = recompute(capsys, published)
    finally:
        chip.write_bytes(data)
        os.utime(chip, ns=(times.st_atime_ns, times.st_mtime_ns))
    (fault,) = answer["faults"]
    assert (status, fault["kind"]) == (1, "other vectors")
    assert "is published, and now skipped (corrupt" in fault["what"]
