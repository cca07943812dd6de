"""How long a tick of the schedule takes: surveying every tile of a manifest.

    python -m benchmarks.tick --tiles 56000 --current 300

Ticks of `new_imagery_daily`, evaluated as the code server does, over tiles with one chip each, the second
of two. First a manifest of many tiles that have chips and no results, in a folder: the tick's own CPU alone.
Then tiles that are embedded and published, in a folder and on an S3 server on loopback; of that only the CPU
of this process counts. What a large manifest on S3 takes is projected from the latter: CPU, and waiting for
answers, which is arithmetic.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice, product
from pathlib import Path

import dagster as dg

from benchmarks.growth import DATE
from clay_assets.dagster import build_defs
from clay_assets.dagster.build import build_resources
from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.settings import Settings
from clay_assets.storage import Store
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels
from clay_assets_tests.s3_server import S3Bucket, client, serving

COLUMNS = "ABCDEFGHJK"
ROWS = "ABCDEFGHJKLMNPQ"
SURVEYORS = 32
"""`clay_assets.state.survey.WORKERS`: tiles surveyed at a time."""

REQUESTS = 3
"""For a current tile: a LIST of its chips, one read each of the ends of its results and its file."""


def codes(count: int) -> list[str]:
    """So many MGRS codes, sorted: up to 72,000."""
    zones = [f"{zone:02}" for zone in range(1, 61)]
    return ["".join(parts) for parts in islice(product(zones, "NPQRSTUV", COLUMNS, ROWS), count)]


def settings_for(root: Path, place: str, tiles: Sequence[str]) -> dict[str, str]:
    """Variables for tiles at a place: a folder or `s3://bucket`."""
    (root / "tiles.txt").write_text("\n".join(tiles) + "\n")
    return {
        "CLAY_CHIPS_URI": f"{place}/chips",
        "CLAY_WORK_URI": f"{place}/work",
        "CLAY_OUTPUT_URI": f"{place}/output",
        "CLAY_CHECKPOINT": str(root / "tiny.ckpt"),
        "CLAY_TILES": str(root / "tiles.txt"),
        "CLAY_TILES_PER_RUN": "0",
        "CLAY_ALLOW_UNTRAINED": "1",
        "XDG_CACHE_HOME": str(root / "cache"),
    }


def tick(settings: Mapping[str, str]) -> dict[str, float]:
    """Evaluate two ticks; returns the second's wall and CPU seconds and what it requests."""
    with variables(settings), dg.instance_for_test() as instance:
        found = Settings.from_environment()
        defs = build_defs(settings=found)
        schedule = defs.resolve_schedule_def("new_imagery_daily")
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime.now(UTC),
            resources=build_resources(found),
            repository_def=defs.get_repository_def(),
        ) as context:
            schedule.evaluate_tick(context)  # imports, and opens connections
            wall, cpu = time.perf_counter(), time.process_time()
            made = schedule.evaluate_tick(context)
            spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    tiles = len(Path(settings["CLAY_TILES"]).read_text().split())
    return {**spent, "tiles": tiles, "runs": len(made.run_requests or ())}


def embed(root: Path, settings: Mapping[str, str], tiles: Sequence[str]) -> None:
    """Embed and publish tiles, in a process of its own."""
    chips, chip = Store(settings["CLAY_CHIPS_URI"]), chip_bytes(chip_pixels())
    for tile in tiles:
        chips.write(f"{tile}/{DATE}/{chip_name(1, tile=tile, date=DATE)}", chip)
    home = root / "dagster"
    home.mkdir(exist_ok=True)
    command = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize"]
    command += ["-m", "clay_assets.definitions", "--select", "*"]
    command += ["--partition-range", f"{tiles[0]}...{tiles[-1]}"]
    environment = {**os.environ, **settings, "DAGSTER_HOME": str(home)}
    subprocess.run(command, env=environment, check=True, capture_output=True)


def without_results(root: Path, tiles: Sequence[str]) -> dict[str, float]:
    """A tick over tiles with chips, none of which is embedded."""
    settings = settings_for(root, str(root / "new"), tiles)
    for tile in tiles:
        # Written plainly, for `Store` waits for the disk after each file.
        folder = root / "new" / "chips" / tile / DATE
        folder.mkdir(parents=True)
        (folder / chip_name(1, tile=tile, date=DATE)).write_bytes(b"a chip")
    return tick(settings)


def in_folder(root: Path, tiles: Sequence[str]) -> dict[str, float]:
    """A tick over tiles that are current, in a folder."""
    settings = settings_for(root, str(root / "current"), tiles)
    embed(root, settings, tiles)
    return tick(settings)


def on_s3(root: Path, tiles: Sequence[str]) -> dict[str, float]:
    """A tick over tiles that are current, on S3."""
    with serving() as endpoint:
        bucket = S3Bucket(endpoint, "tick")
        client(endpoint).create_bucket(Bucket=bucket.name)
        with variables(bucket.environment):
            settings = settings_for(root, f"s3://{bucket.name}", tiles)
            embed(root, settings, tiles)
            return tick(settings)


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the length of the block."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", type=int, default=56_000, help="of the manifest")
    parser.add_argument("--current", type=int, default=300, help="tiles that are embedded and published")
    parser.add_argument("--latency", type=float, default=0.04, help="seconds of an S3 request")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clay-tick-") as folder:
        root = Path(folder)
        write_untrained_checkpoint(root / "tiny.ckpt", model_size="tiny")
        few = codes(options.current)
        rows = {
            "folder, no results": without_results(root, codes(options.tiles)),
            "folder, current": in_folder(root, few),
            "S3, current": on_s3(root, few),
        }
    for what, row in rows.items():
        print(
            f"measured   {what:20}{row['tiles']:8,.0f} tiles{row['wall_s']:9.1f} s"
            f"{1000 * row['cpu_s'] / row['tiles']:8.2f} ms CPU a tile, {row['runs']:,.0f} runs requested"
        )
    cpu = options.tiles * rows["S3, current"]["cpu_s"] / options.current
    waiting = options.tiles * REQUESTS * options.latency / SURVEYORS
    print(
        f"projected  {'S3, current':20}{options.tiles:8,} tiles{max(cpu, waiting):9.1f} s: {cpu:.0f} s of one"
        f" core and, beside it, {waiting:.0f} s of waiting"
    )
    print(json.dumps({"benchmark": "tick", "rows": rows}))


if __name__ == "__main__":
    main()
