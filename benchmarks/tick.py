"""Duration of a tick of the schedule, which surveys tiles of a manifest.

    python -m benchmarks.tick --tiles 56000 --current 300

Two ticks of `new_imagery_daily` in one process, evaluated as the code server does: the first finds nothing in
its cache, the second finds every tile. First over a manifest of many tiles with chips but no results, as many
as one tick surveys; a fake S3 server generates the listings. Then over tiles that are embedded and published,
one chip each, in a folder and on moto's S3. The servers are other processes on loopback; CPU time is this
process's. From these measurements the duration of a tick over embedded tiles is projected: CPU time, and the
computed time of waiting for responses.
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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice, product
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import dagster as dg

from benchmarks.growth import DATE
from clay_assets.dagster import build_defs
from clay_assets.dagster.automation import DAILY_HOUR, TILES_PER_TICK
from clay_assets.dagster.build import build_resources
from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.settings import Settings
from clay_assets.storage import Store
from clay_assets.tiles import TILE_CODE
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels
from clay_assets_tests.s3_server import S3Bucket, client, serving

CLIENT_THREADS = 32
"""`clay_assets.state.survey.WORKERS`: tiles surveyed at a time."""

COLUMNS = "ABCDEFGHJK"
ROWS = "ABCDEFGHJKLMNPQ"
LISTING = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>made-up</Name><Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys>"
    "<IsTruncated>false</IsTruncated>{chips}</ListBucketResult>"
)
CHIP = (
    "<Contents><Key>{prefix}2020-06-15/claytile_{tile}_20200615_v02_{number:04}.tif</Key><Size>7400000</Size>"
    "<LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;0&quot;</ETag></Contents>"
)

REQUESTS = {"first": 3, "next": 1}
"""Of a current tile: a LIST of its chips and, unless the state is cached, one read each of the footers of its
results and its file."""


def codes(count: int) -> list[str]:
    """Return this many MGRS codes, sorted: up to 72,000."""
    zones = [f"{zone:02}" for zone in range(1, 61)]
    return ["".join(parts) for parts in islice(product(zones, "NPQRSTUV", COLUMNS, ROWS), count)]


def settings_for(root: Path, place: str, tiles: Sequence[str]) -> dict[str, str]:
    """Return the variables for tiles at a place: a folder or `s3://bucket`."""
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


@dataclass(frozen=True)
class Tick:
    """The cost of a tick.

    Attributes:
        tiles: Tiles surveyed.
        wall_s: Wall time.
        cpu_s: CPU time of this process.
        runs: Runs requested.
    """

    tiles: int
    wall_s: float
    cpu_s: float
    runs: int


def ticks(settings: Mapping[str, str]) -> list[Tick]:
    """Evaluate the schedule's first tick of a day and the same tick again, now with a full cache."""
    tiles = min(len(Path(settings["CLAY_TILES"]).read_text().split()), TILES_PER_TICK)
    done = []
    with variables(settings), dg.instance_for_test() as instance:
        found = Settings.from_environment()
        defs = build_defs(settings=found)
        schedule = defs.resolve_schedule_def("new_imagery_daily")
        for _ in range(2):
            with dg.build_schedule_context(
                instance=instance,
                scheduled_execution_time=datetime(2026, 10, 5, DAILY_HOUR, tzinfo=UTC),
                resources=build_resources(found),
                repository_def=defs.get_repository_def(),
            ) as context:
                wall, cpu = time.perf_counter(), time.process_time()
                made = schedule.evaluate_tick(context)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            done.append(Tick(tiles, wall, cpu, len(made.run_requests or ())))
    return done


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


def without_results(root: Path, tiles: Sequence[str], chips: int) -> list[Tick]:
    """Measure ticks over tiles that have chips but no results."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve_listings, args=(sending, chips), daemon=True)
    server.start()
    try:
        bucket = S3Bucket(f"http://127.0.0.1:{receiving.recv()}", "made-up")
        with variables(bucket.environment):
            return ticks(settings_for(root, f"s3://{bucket.name}", tiles))
    finally:
        server.terminate()
        server.join()


def serve_listings(sending: Connection, chips: int) -> None:
    """Send the port, then answer LIST requests for a tile with `chips` chips, and others with nothing."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if "list-type" not in query:  # an object
                self.send_error(404)
                return
            prefix = query.get("prefix", [""])[0]
            tile = prefix.strip("/").rpartition("/")[2]
            numbers = range(1, chips + 1) if TILE_CODE.fullmatch(tile) else ()
            listed = "".join(CHIP.format(prefix=prefix, tile=tile, number=number) for number in numbers)
            answer = LISTING.format(prefix=prefix, chips=listed, count=len(numbers)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        sending.send(http.server_port)
        http.serve_forever()


def in_folder(root: Path, tiles: Sequence[str]) -> list[Tick]:
    """Measure ticks over current tiles in a folder."""
    settings = settings_for(root, str(root / "current"), tiles)
    embed(root, settings, tiles)
    return ticks(settings)


def on_s3(root: Path, tiles: Sequence[str]) -> tuple[list[Tick], list[Tick]]:
    """Measure ticks over current tiles on S3, and over one of them: the fixed cost of a tick."""
    with serving() as endpoint:
        bucket = S3Bucket(endpoint, "tick")
        client(endpoint).create_bucket(Bucket=bucket.name)
        with variables(bucket.environment):
            settings = settings_for(root, f"s3://{bucket.name}", tiles)
            embed(root, settings, tiles)
            many = ticks(settings)
            return many, ticks(settings_for(root, f"s3://{bucket.name}", tiles[:1]))


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
    parser.add_argument("--chips", type=int, default=480, help="of a tile without results")
    parser.add_argument("--current", type=int, default=300, help="tiles that are embedded and published")
    parser.add_argument("--latency", type=float, default=0.04, help="seconds of an S3 request")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clay-tick-") as folder:
        root = Path(folder)
        write_untrained_checkpoint(root / "tiny.ckpt", model_size="tiny")
        few = codes(options.current)
        current, single = on_s3(root, few)
        rows = {
            "S3, new, 1 chip": without_results(root, codes(options.tiles), 1),
            f"S3, new, {options.chips} chips": without_results(root, codes(options.tiles), options.chips),
            "folder, current, 1 chip": in_folder(root, few),
            "S3, current, 1 chip": current,
            "S3, one current tile": single,
        }
    for what, measured in rows.items():
        for which, tick in zip(REQUESTS, measured, strict=True):
            print(
                f"measured   {what:24} {which:6}{tick.tiles:6,} tiles{tick.wall_s:7.1f} s,"
                f" {tick.cpu_s:5.1f} s"
                f" of CPU, {tick.runs:,} runs requested"
            )
    new, many = list(rows.values())[:2]
    count = -(-options.tiles // TILES_PER_TICK)
    for index, (which, requests) in enumerate(REQUESTS.items()):
        tiles, constant = many[index].tiles, single[index].cpu_s
        # Beyond the listing of its one chip, a current tile costs its footers, unless cached.
        footers = (current[index].cpu_s - constant) / max(len(few) - 1, 1)
        footers -= (new[index].cpu_s - constant) / max(tiles - 1, 1)
        core = many[index].cpu_s + tiles * max(footers, 0)
        waiting = tiles * requests * options.latency / CLIENT_THREADS
        print(
            f"projected  {f'S3, current, {options.chips} chips':24} {which:6}{tiles:6,} tiles"
            f"{max(core, waiting):7.1f} s: {core:.1f} s of one core and, in parallel, {waiting:.1f} s of"
            f" waiting; {count} such ticks for {options.tiles:,} tiles"
        )
    found = {what: [asdict(tick) for tick in pair] for what, pair in rows.items()}
    print(json.dumps({"benchmark": "tick", "rows": found}))


if __name__ == "__main__":
    main()
