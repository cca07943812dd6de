import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from clay_assets.cli import main
from clay_assets.settings import Settings
from clay_assets.state import TileStores
from clay_assets.state.states import human_size, human_time
from clay_assets.storage import Store
from clay_assets.tiles.manifest import read_tiles
from clay_assets_tests.s3_server import S3Bucket
from clay_assets_tests.storage.misbehaving import misbehaving
from clay_assets_tests.tile_scene import MadeUp, finish, know_checkpoint, put_chips


def set_environment(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TileStores:
    """The default stores under an empty working directory, without any variable set."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("CLAY_", "AWS_"))]:
        monkeypatch.delenv(name)
    # `main` sets the variables of `.env`; setting and unsetting them here makes monkeypatch restore them.
    for name in ("CLAY_TILES", "CLAY_CHIPS_URI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data" / "chips").mkdir(parents=True)
    stores = TileStores(*(Store(f"data/{name}") for name in ("chips", "work", "embeddings")))
    checkpoint = tmp_path / Settings().checkpoint
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    know_checkpoint(stores.work, Store(checkpoint))
    return stores


@pytest.mark.usefixtures("stores")
def test_tiles_of_a_bucket_are_printed_as_a_manifest_and_other_folders_are_reported(
    bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("36MXB/2020-06-15/a.tif", "27WXN/b.tif", "logs/c.txt", "27WXI/d.tif", "README"):
        bucket.store("02").write(key, b"x")
    set_environment(monkeypatch, bucket.environment)

    assert main(["tiles", bucket.uri("02")]) == 0

    out, err = capsys.readouterr()
    assert out == "27WXN\n36MXB\n"
    assert err == "clay: ignored, because they are not MGRS codes: 27WXI, logs\n"
    Path("tiles.txt").write_text(out)
    assert read_tiles(Path("tiles.txt")) == ["27WXN", "36MXB"]


def test_tiles_of_a_folder_are_printed(stores: TileStores, capsys: pytest.CaptureFixture[str]) -> None:
    put_chips(stores, "27WXN", [1])
    put_chips(stores, "18HYB", [1])
    assert main(["tiles", "data/chips"]) == 0
    assert capsys.readouterr() == ("18HYB\n27WXN\n", "")


def test_tiles_replace_a_manifest_only_after_a_successful_listing(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    put_chips(stores, "27WXN", [1])
    put_chips(stores, "18HYB", [1])
    manifest = Path("tiles.txt")
    manifest.write_text("36MXB  # mine\n")

    assert main(["tiles", "data", "--output", "tiles.txt"]) == 2
    assert manifest.read_text() == "36MXB  # mine\n"

    capsys.readouterr()
    assert main(["tiles", "data/chips", "--output", "tiles.txt"]) == 0
    assert manifest.read_text() == "18HYB\n27WXN\n"
    assert capsys.readouterr() == (
        "",
        "clay: 2 tiles are in tiles.txt; reload the code location if one is running\n",
    )
    assert sorted(path.name for path in Path().iterdir()) == ["checkpoints", "data", "tiles.txt"]


def test_a_manifest_that_cannot_be_written_exits_with_a_message(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    put_chips(stores, "27WXN", [1])
    assert main(["tiles", "data/chips", "--output", "nowhere/tiles.txt"]) == 2
    assert capsys.readouterr().err == "clay: cannot write nowhere/tiles.txt: No such file or directory\n"


def test_a_folder_without_tiles_is_refused_and_its_contents_named(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    put_chips(stores, "27WXN", [1])
    assert main(["tiles", "data"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"no tiles under {Path('data').absolute()}" in err
    assert "got chips, work. Use an address that holds one folder per tile" in err


@pytest.mark.parametrize(
    ("arguments", "environment", "phrase"),
    [
        (["tiles", "nowhere"], {}, "The folder .*nowhere is missing"),
        (["tiles", "ftp://bucket"], {}, "got scheme ftp://"),
        (["estimate"], {}, "no tile manifest at .*tiles.txt"),
        (["estimate", "--tiles", "bad.txt"], {}, "1 lines that are not tiles.*line 1: 'Atlantis'"),
        (["estimate", "--tiles", "one.txt"], {"CLAY_CHIPS_URI": "elsewhere"}, "elsewhere is missing"),
        (
            ["estimate", "--tiles", "one.txt"],
            {"CLAY_LEVEL": "pixel"},
            "CLAY_LEVEL is 'pixel', expected one of mean",
        ),
        (["estimate", "--tiles", "one.txt"], {"CLAY_VERSION": "v1"}, "CLAY_VERSION is 'v1'"),
    ],
)
@pytest.mark.usefixtures("stores")
def test_errors_exit_with_status_2_and_a_message(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    phrase: str,
) -> None:
    Path("bad.txt").write_text("Atlantis\n")
    Path("one.txt").write_text("27WXN\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("clay: ")
    assert re.search(phrase, err, re.DOTALL)
    assert "Traceback" not in err


def test_a_misspelt_setting_is_reported(
    stores: TileStores, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(stores, "27WXN")
    Path("tiles.txt").write_text("27WXN\n")
    monkeypatch.setenv("CLAY_CHIP_URI", "elsewhere")
    assert main(["estimate"]) == 0
    assert capsys.readouterr().err.startswith(
        "clay: unknown settings: CLAY_CHIP_URI; expected CLAY_CHIPS_URI,"
    )


@pytest.mark.usefixtures("stores")
def test_a_missing_bucket_exits_with_status_2_and_a_message(
    bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_environment(monkeypatch, bucket.environment)
    assert main(["tiles", "s3://no-such-bucket-of-ours/chips"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("clay: s3://no-such-bucket-of-ours/chips: the server answered")
    assert "Check the bucket's name" in err


def test_an_estimate_counts_the_remaining_chips_at_the_rate_of_earlier_runs(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    for tile, seconds in (("27WXM", 2.0), ("27WXN", 20.0), ("27WXP", 98.0)):
        finish(stores, tile, MadeUp(seconds=seconds), chips=20)
    put_chips(stores, "27WXP", range(21, 61), content=b"a" * 1000)
    put_chips(stores, "28WDS", range(1, 3561), content=b"")
    Path("tiles.txt").write_text("27WXM\n27WXN\n27WXP\n28WDS\n28WDT\n")

    assert main(["estimate"]) == 0

    out, err = capsys.readouterr()
    assert err == f"clay: checking 5 tiles under {Path('data/chips').absolute()}\n"
    rows = [line.split()[:6] for line in out.splitlines()]
    assert rows[:7] == [
        ["state", "tiles", "chips", "size", "to", "embed"],
        ["new", "1", "3,560", "0", "B", "3,560"],
        ["changed", "1", "60", "40.1", "kB", "40"],
        ["current", "2", "40", "240", "B", "0"],
        ["empty", "1", "0", "0", "B", "0"],
        ["all", "5", "3,660", "40.4", "kB", "3,600"],
        [],
    ]
    assert out.splitlines()[7:] == [
        "3,600 chips (40.0 kB) remain to be embedded.",
        "Earlier runs embedded 0.5 chips a second: 60 chips of 3 tiles, with clay-v0-small on cpu.",
        "At that rate it takes 2.0 hours.",
    ]


def test_an_estimate_without_earlier_runs_has_no_rate(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    put_chips(stores, "27WXN", [1, 2])
    Path("mine.txt").write_text("27WXN\n")
    assert main(["estimate", "--tiles", "mine.txt"]) == 0
    out = capsys.readouterr().out
    assert "2 chips (12 B) remain to be embedded." in out
    assert "The rate is unknown until one of these tiles has been embedded." in out


def test_an_estimate_of_finished_tiles_says_that_nothing_remains(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(stores, "27WXN")
    Path("tiles.txt").write_text("27WXN\n")
    assert main(["estimate"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Nothing remains to be embedded."


def test_an_estimate_reads_s3_and_dotenv(bucket: S3Bucket, tmp_path: Path) -> None:
    stores = TileStores(*(bucket.store(name) for name in ("chips", "work", "embeddings")))
    finish(stores, "27WXN")
    settings = bucket.environment | {
        "CLAY_CHIPS_URI": bucket.uri("chips"),
        "CLAY_WORK_URI": bucket.uri("work"),
        "CLAY_OUTPUT_URI": bucket.uri("embeddings"),
        "CLAY_CHECKPOINT": bucket.uri("clay.ckpt"),
    }
    bucket.store().write("clay.ckpt", b"weights")
    know_checkpoint(stores.work, bucket.store("clay.ckpt"))
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    (tmp_path / "tiles.txt").write_text("27WXN\n")
    # As in `dagster dev`, the file takes precedence over the environment.
    environment = {**os.environ, "CLAY_CHIPS_URI": "s3://another/chips"}
    command = [sys.executable, "-m", "clay_assets", "estimate"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert bucket.uri("chips") in done.stderr
    assert "Nothing remains to be embedded." in done.stdout


def test_an_estimate_without_a_checkpoint_counts_existing_results_as_stale(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(stores, "27WXN")
    put_chips(stores, "27WXP", [1])
    Path("tiles.txt").write_text("27WXN\n27WXP\n")
    Path(Settings().checkpoint).unlink()

    assert main(["estimate"]) == 0

    out, err = capsys.readouterr()
    assert "clay: existing results count as stale: no checkpoint at" in err
    assert [line.split()[:3] for line in out.splitlines()[1:3]] == [["new", "1", "1"], ["stale", "1", "3"]]


def orphans_of(stores: TileStores) -> dict[str, str]:
    """A current tile, one whose chips are deleted, one not in the manifest, and other programs' files."""
    for tile in ("27WXM", "27WXN", "27WXP"):
        finish(stores, tile)
    finish(stores, "27WXN", version=2)
    for chip in stores.chips.list("27WXN/"):
        stores.chips.delete(chip)
    stores.output.write("notes/27WXN_20200615_20200615_v001.gpq", b"other")
    stores.output.write("readme.txt", b"other")
    Path("tiles.txt").write_text("27WXM\n27WXN\n28WDS\n")  # the last was never published
    name = "{}_20200615_20200615_v00{}.gpq".format
    return {
        "current": stores.output.url(name("27WXM", 1)),
        "empty": stores.output.url(name("27WXN", 1)),
        "empty, another version": stores.output.url(name("27WXN", 2)),
        "not in the manifest": stores.output.url(name("27WXP", 1)),
    }


def test_orphans_are_reported_by_the_estimate_and_removed_only_by_prune_yes(
    stores: TileStores, capsys: pytest.CaptureFixture[str]
) -> None:
    files = orphans_of(stores)
    before = [file.url for file in stores.output.list()]

    assert main(["estimate"]) == 0
    estimate = capsys.readouterr().out
    assert main(["prune"]) == 0
    listed = capsys.readouterr()
    untouched = [file.url for file in stores.output.list()]
    assert main(["prune", "--yes"]) == 0
    removed = capsys.readouterr()

    orphans = sorted(url for kind, url in files.items() if kind != "current")
    assert "3 published files are orphans" in estimate
    assert "(27WXN, 27WXP). `clay prune` lists them" in estimate
    assert sorted(listed.out.splitlines()) == orphans
    assert listed.err == "clay: 3 files to remove; run `clay prune --yes` to do it\n"
    assert untouched == before
    assert sorted(removed.out.splitlines()) == orphans
    assert removed.err == "clay: 3 files removed\n"
    assert [file.url for file in stores.output.list()] == [url for url in before if url not in orphans]
    assert main(["prune", "--yes"]) == 0
    assert capsys.readouterr() == ("", "clay: 0 files removed\n")


@pytest.mark.parametrize("place", ["data/nowhere", "data/work"])
def test_nothing_is_pruned_under_a_wrong_address_of_chips(
    stores: TileStores, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    orphans_of(stores)
    before = stores.output.list()
    monkeypatch.setenv("CLAY_CHIPS_URI", place)

    assert main(["prune", "--yes"]) == 2

    assert "is missing" if place == "data/nowhere" else "no tile has a folder" in capsys.readouterr().err
    assert stores.output.list() == before


@pytest.mark.parametrize(
    ("variable", "signed", "payer"),
    [("", True, None), ("AWS_NO_SIGN_REQUEST", False, None), ("CLAY_REQUEST_PAYER", True, "requester")],
    ids=["neither", "anonymous", "the requester pays"],
)
@pytest.mark.parametrize("command", ["tiles", "estimate"])
@pytest.mark.usefixtures("stores")
def test_read_options_reach_the_stores_of_chips_and_of_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch, command: str, variable: str, signed: bool, payer: str | None
) -> None:
    seen: dict[str, tuple[bool, str | None]] = {}

    def answer(request: BaseHTTPRequestHandler, _: int) -> None:
        headers = request.headers
        seen[request.path.split("?")[0]] = ("Authorization" in headers, headers.get("x-amz-request-payer"))
        listing = (
            b"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>1</KeyCount><CommonPrefixes>"
            b"<Prefix>27WXN/</Prefix></CommonPrefixes></ListBucketResult>"
        )
        request.send_response(200)
        request.send_header("ETag", '"0123456789abcdef"')
        request.send_header("Last-Modified", "Tue, 16 Jun 2020 12:00:00 GMT")
        request.send_header("Content-Length", str(len(listing)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(listing)

    Path("tiles.txt").write_text("27WXN\n")
    with misbehaving(answer) as endpoint:
        settings = {
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "CLAY_CHIPS_URI": "s3://chips",
            "CLAY_CHECKPOINT": "s3://models/clay.ckpt",
        } | ({variable: "1"} if variable else {})
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        assert main([command, "s3://chips"] if command == "tiles" else [command]) == 0

    expected = {"/chips"} if command == "tiles" else {"/chips", "/models/clay.ckpt"}
    assert seen == dict.fromkeys(expected, (signed, payer))


def test_the_command_imports_neither_dagster_nor_torch(stores: TileStores) -> None:
    finish(stores, "27WXN")
    Path("tiles.txt").write_text("27WXN\n")
    program = (
        "import sys; from clay_assets.cli import main; status = main(['estimate']); "
        "sys.exit(status or ('dagster' in sys.modules) + 2 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_closed_pipe_is_not_an_error(stores: TileStores) -> None:
    put_chips(stores, "27WXN", [1])
    # `true` ends before the first line is written.
    pipeline = f"set -o pipefail; {sys.executable} -m clay_assets tiles data/chips | true"
    done = subprocess.run(["/bin/bash", "-c", pipeline], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_describes_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as help_shown:
        main(["--help"])
    assert help_shown.value.code == 0
    out = capsys.readouterr().out
    assert "print the tiles of a bucket as a manifest" in out
    assert "estimate how long" in out
    with pytest.raises(SystemExit) as refused:
        main([])
    assert refused.value.code == 2


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (999_960, "1000.0 kB"), (6_400_000_000_000, "6.4 TB")],
)
def test_sizes_have_decimal_units(count: int, text: str) -> None:
    assert human_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "0.1 minutes"), (90, "1.5 minutes"), (5400, "1.5 hours"), (1e7, "2,777.8 hours")],
)
def test_durations_are_in_minutes_or_hours(seconds: float, text: str) -> None:
    assert human_time(seconds) == text
