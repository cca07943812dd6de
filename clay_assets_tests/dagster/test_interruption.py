"""A run over ten tiles is stopped in the middle, by SIGTERM or by SIGKILL, and run again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from clay_assets.dagster import build_defs
from clay_assets.settings import Settings
from clay_assets_tests.dagster.project import ASSETS, RANGE_END, RANGE_START
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels

DATE = "2020-06-15"
TILES = [f"33U{column}{row}" for column in "UV" for row in "QRSTU"]
CHIPS = 2
ENOUGH = 3
"""Published tiles after which the run is stopped."""


def _make_project(home: Path, checkpoint: Path) -> dict[str, str]:
    """Write different chips for ten tiles; returns the environment to run in."""
    for number_of_tile, tile in enumerate(TILES):
        folder = home / "data" / "chips" / tile / DATE
        folder.mkdir(parents=True)
        for number in range(1, CHIPS + 1):
            pixels = chip_pixels() + number_of_tile * 10 + number
            chip = chip_bytes(pixels, crs="EPSG:32633", origin=(500_000 + 5_120 * number, 5_500_000))
            (folder / chip_name(number, tile=tile, date=DATE)).write_bytes(chip)
    (home / "tiles.txt").write_text("\n".join(TILES) + "\n")
    (home / "dagster").mkdir()
    return {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CLAY_", "AWS_", "DAGSTER_"))
        },
        "CLAY_CHECKPOINT": str(checkpoint),
        "CLAY_TILES_PER_RUN": "0",
        "CLAY_BATCH_SIZE": "2",
        "DAGSTER_HOME": str(home / "dagster"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }


def _start(home: Path, environment: dict[str, str], log: Path, select: str) -> "subprocess.Popen[bytes]":
    command = [
        str(Path(sys.executable).parent / "dagster"),
        "asset",
        "materialize",
        "-m",
        "clay_assets.definitions",
    ]
    selection = ["--select", select, "--partition-range", f"{TILES[0]}...{TILES[-1]}"]
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, *selection], cwd=home, env=environment, stdout=output, stderr=output
        )


def _results(home: Path) -> dict[str, tuple[int, int]]:
    """Modification time and row count of each complete results file."""
    folder = home / "data" / "work" / "chip_embeddings"
    found = {}
    for path in folder.glob("*/[!.]*.parquet") if folder.is_dir() else ():
        found[path.stem] = (path.stat().st_mtime_ns, pq.read_metadata(path).num_rows)
    return found


def _published(home: Path) -> set[str]:
    """Tiles with a published file."""
    return {path.name.split("_")[0] for path in (home / "data" / "embeddings").glob("[!.]*.gpq")}


def _wait_until_in_the_middle(home: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while len(_published(home)) < ENOUGH:
        assert process.poll() is None, f"the run ended early:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.02)


# A run that also makes the collection records its tiles when it ends: if it is killed, it records none.
@pytest.mark.parametrize(
    ("stop", "select"),
    [(signal.SIGTERM, "*"), (signal.SIGKILL, " or ".join(f"key:{name}" for name in ASSETS))],
    ids=["SIGTERM", "SIGKILL"],
)
def test_a_run_that_is_stopped_in_the_middle_resumes(
    stop: signal.Signals,
    select: str,
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_settings: None,  # noqa: ARG001
) -> None:
    environment = _make_project(tmp_path, tiny_checkpoint)
    log = tmp_path / "log"

    process = _start(tmp_path, environment, log, select)
    _wait_until_in_the_middle(tmp_path, process, log)
    process.send_signal(stop)
    assert process.wait(60) != 0

    finished = {tile: state for tile, state in _results(tmp_path).items() if state[1] == CHIPS}
    assert ENOUGH <= len(finished) < len(TILES), "the run was not stopped in the middle"
    published = _published(tmp_path)
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        recorded = {name: instance.get_materialized_partitions(dg.AssetKey(name)) for name in ASSETS}
    if stop is signal.SIGKILL:  # possibly between a file and its record; two tiles are published at a time
        assert all(tiles <= published and len(published - tiles) <= 3 for tiles in recorded.values())
    else:
        assert recorded == dict.fromkeys(ASSETS, published)
    assert published <= set(finished)

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    job = build_defs(settings=Settings.from_environment(environment)).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        again = job.execute_in_process(
            instance=instance,
            tags={RANGE_START: TILES[0], RANGE_END: TILES[-1]},
            asset_selection=None if select == "*" else [dg.AssetKey(name) for name in ASSETS],
        )
    assert again.success

    results = _results(tmp_path)
    assert {tile: rows for tile, (_, rows) in results.items()} == dict.fromkeys(TILES, CHIPS)
    assert {tile: results[tile] for tile in finished} == finished, "a finished tile was embedded again"
    files = sorted((tmp_path / "data" / "embeddings").glob("*.gpq"))
    assert [path.name.split("_")[0] for path in files] == sorted(TILES)
    for path in files:
        urls = pq.read_table(path, columns=["source_url"])["source_url"].to_pylist()
        assert len(urls) == len(set(urls)) == CHIPS
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        for asset in ASSETS:
            assert instance.get_materialized_partitions(dg.AssetKey(asset)) == set(TILES)
    leftovers = [path for path in (tmp_path / "data").rglob(".*") if path.is_file()]
    assert stop is signal.SIGKILL or not leftovers
