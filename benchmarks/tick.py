"""How long a tick of the schedule takes: surveying every tile of a manifest.

    python -m benchmarks.tick --tiles 56000 --current 300

Ticks of `new_imagery_daily`, evaluated as the code server does, over tiles with one chip each, the second of
two. First a manifest of many tiles that have chips and no results, on a server of S3's listings that makes up
its answers. Then tiles that are embedded and published, in a folder and on moto's S3. The servers are other
processes on loopback; CPU is this one's. What a large manifest takes once it is embedded is projected from
the latter: CPU, and waiting for answers, which is arithmetic.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice, product
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import dagster as dg

from benchmarks.growth import DATE
from clay_assets.dagster import build_defs
from clay_assets.dagster.build import build_resources
from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.settings import Settings
from clay_assets.storage import Store
from clay_assets.tiles.code import TILE_CODE
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels
from clay_assets_tests.s3_server import S3Bucket, client, serving

COLUMNS = "ABCDEFGHJK"
ROWS = "ABCDEFGHJKLMNPQ"
SURVEYORS = 32
"""`clay_assets.state.survey.WORKERS`: tiles surveyed at a time."""

LISTING = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>made-up</Name><Prefix>{prefix}</Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys>"
    "<IsTruncated>false</IsTruncated>{held}</ListBucketResult>"
)
CHIP = (
    "<Contents><Key>{prefix}2020-06-15/claytile_{tile}_20200615_v02_0001.tif</Key><Size>7400000</Size>"
    "<LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;0&quot;</ETag></Contents>"
)

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
        "CLAY_STAC_URI": f"{place}/stac",
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
    receiving, sending = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve_listings, args=(sending,), daemon=True)
    server.start()
    try:
        bucket = S3Bucket(f"http://127.0.0.1:{receiving.recv()}", "made-up")
        with variables(bucket.environment):
            return tick(settings_for(root, f"s3://{bucket.name}", tiles))
    finally:
        server.terminate()
        server.join()


def serve_listings(sending: Connection) -> None:
    """Answer LIST requests for a tile's chips with one chip, and others with nothing; sends its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            prefix = query.get("prefix", [""])[0]
            tile = prefix.strip("/").rpartition("/")[2]
            held = CHIP.format(prefix=prefix, tile=tile) if TILE_CODE.fullmatch(tile) else ""
            answer = LISTING.format(prefix=prefix, held=held).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        sending.send(http.server_port)
        http.serve_forever()


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
            "S3, no results": without_results(root, codes(options.tiles)),
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
