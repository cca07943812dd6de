"""A long test with faults: `python -m rehearsal.soak --minutes 30 --tiles 2000`.

A backfill on PostgreSQL and S3 while requests fail, runs are killed, new chips arrive and the sensor requests
them. At the end, without faults, every chip must have one row in a file, and no server may have grown.
"""

import argparse
import io
import itertools
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels
from clay_assets_tests.reliability.proxy import TRANSIENT, Fault, Proxy, at_rates, proxying
from rehearsal.backend import DEPLOY, Backend

DATE = "2020-06-15"
TILES_PER_RUN = 50
SERVERS = {"dagster-webserver": "webserver", "dagster-daemon": "daemon", "spawn_main": "run"}
"""Text in a command line → kind of process. The code server spawns the runs."""

RATES: dict[Fault, float] = {fault: 0.01 for fault in TRANSIENT if fault != "stall"}
"""Fraction of requests that fail, by kind. Without stalls, which would hold a request for 20 s."""

FASTER = {
    "run_monitoring:\n": "run_monitoring:\n  poll_interval_seconds: 10\n",
    "run_end_seconds: 60": "run_end_seconds: 10",
    "default_limit: 1": "default_limit: 2",
}
"""Changes of the settings: killed runs are detected within seconds, not minutes, and two runs work at once.

With one run at a time the cores were idle for half of the time: the next run starts 5 to 30 s after the last.
"""

KILL_EVERY_S, ARRIVE_EVERY_S, SAMPLE_EVERY_S = 60, 5, 5
SETTLE_S = 3_600
"""Limit for the last backfill: 2,000 tiles take half an hour on two busy cores."""

GROWTH = 1.25
"""Maximum ratio of a server's median memory in the last third of the time to that in the middle third."""


class Soak:
    """Running servers, tiles in a bucket, and the count of faults."""

    def __init__(self, scratch: Path, stack: ExitStack, tiles: list[str], seed: int) -> None:
        """Start the servers and fill the bucket."""
        self.tiles = tiles
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.backend = Backend(scratch, stack, tiles)
        self.say = self.backend.say
        self.proxy: Proxy = stack.enter_context(proxying(str(self.backend.s3.endpoint_url)))
        self.backend.create_buckets("results")
        self.contents = [chip_bytes(chip_pixels() + value) for value in range(20)]
        self.chips: dict[str, int] = {}
        for tile in tiles:
            self.add_chip(tile)
        self.memory: dict[str, list[float]] = defaultdict(list)
        self.kills = 0
        environment = self.backend.environment("results", TILES_PER_RUN, self.proxy.url)
        self.api = self.backend.start_dagster(environment, DEPLOY / "dagster-production.yaml", FASTER)

    def add_chip(self, tile: str) -> None:
        """Write one more chip of a tile."""
        number = self.chips[tile] = self.chips.get(tile, 0) + 1
        content = self.contents[(number + self.tiles.index(tile)) % len(self.contents)]
        name = chip_name(number, tile=tile, date=DATE)
        self.backend.store("chips").write(f"{tile}/{DATE}/{name}", content)

    def disturb(self, minutes: float) -> None:
        """Run a backfill and the sensor with faults, kills and new chips."""
        self.proxy.decide = at_rates(RATES, seed=14)
        self.api.start_sensor("new_imagery")
        self.api.launch_backfill(self.tiles, "soak")
        began = time.monotonic()
        next_kill, next_chip = began + KILL_EVERY_S / 2, began
        while (now := time.monotonic()) < began + 60 * minutes:
            processes = _processes()
            if now > next_kill:
                self._kill_one(processes["run"])
                next_kill = now + KILL_EVERY_S * self.random.uniform(0.5, 1.5)
            if now > next_chip:
                self.add_chip(self.random.choice(self.tiles))
                next_chip = now + ARRIVE_EVERY_S
            self._sample_memory(processes)
            time.sleep(SAMPLE_EVERY_S)
        faults, requests = sum(self.proxy.injected.values()), len(self.proxy.requests)
        arrived = sum(self.chips.values()) - len(self.tiles)
        self.say(
            f"{faults} of {requests} requests failed, {self.kills} runs were killed, {arrived} chips arrived"
        )

    def settle(self) -> None:
        """Run a last backfill without faults, in place of the runs that still wait: it covers all tiles."""
        self.proxy.decide = lambda _: None
        self.say(f"{self.api.cancel_queued_runs()} queued runs were canceled in favour of a last backfill")
        status = self.api.wait_for_backfill(self.api.launch_backfill(self.tiles, "the rest"), SETTLE_S)
        self.say(f"the last backfill has ended: {status}")

    def faults(self) -> list[str]:
        """Return the tiles that do not have one row per chip, and the servers that grew."""
        output = self.backend.store("results/embeddings")
        rows: dict[str, list[str]] = defaultdict(list)
        for found in output.list():
            table = pq.read_table(io.BytesIO(output.read(found)), columns=["source_url"])
            rows[Path(found.url).name[:5]] += table["source_url"].to_pylist()
        faults = [
            f"{tile}: {len(rows[tile])} rows, {len(set(rows[tile]))} of them different, for {count} chips"
            for tile, count in self.chips.items()
            if not len(rows[tile]) == len(set(rows[tile])) == count
        ]
        self.say(f"{sum(map(len, rows.values()))} rows are published for {sum(self.chips.values())} chips")
        for server, sizes in self.memory.items():
            third = max(1, len(sizes) // 3)
            middle = statistics.median(sizes[third : 2 * third] or sizes)
            last = statistics.median(sizes[-third:])
            self.say(
                f"{server}: {middle:.0f} MB in the middle, {last:.0f} MB at the end, {max(sizes):.0f} at most"
            )
            if server != "run" and last > GROWTH * middle:
                faults.append(f"{server} grew from {middle:.0f} to {last:.0f} MB")
        return faults

    def _kill_one(self, runs: list[psutil.Process]) -> None:
        with suppress(psutil.Error, IndexError):
            self.random.choice(runs).kill()
            self.kills += 1

    def _sample_memory(self, processes: dict[str, list[psutil.Process]]) -> None:
        for kind, found in processes.items():
            with suppress(psutil.Error):
                self.memory[kind].append(max(process.memory_info().rss for process in found) / 1e6)


def _processes() -> dict[str, list[psutil.Process]]:
    """Return the servers and runs below this process, by kind."""
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            kind = next((kind for text, kind in SERVERS.items() if text in command), None)
            if kind:
                found[kind].append(process)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal.soak", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--tiles", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=14)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # for the same reason as in `__main__`
    rows = "ABCDEFGHJKLMNPQRSTUV"
    near = (f"33U{column}{row}" for column in "STUVWXYZ" for row in rows)
    more = (f"{zone}T{column}{row}" for zone in range(10, 30) for column in "STUVWX" for row in rows)
    tiles = sorted(itertools.islice(itertools.chain(near, more), options.tiles))
    with tempfile.TemporaryDirectory(prefix="clay-soak-") as folder, ExitStack() as stack:
        soak = Soak(Path(folder), stack, tiles, options.seed)
        soak.say(f"{len(tiles)} tiles are on S3")
        soak.disturb(options.minutes)
        soak.settle()
        faults = soak.faults()
        for fault in faults:
            print(f"FAULT: {fault}")
        soak.say(f"{len(faults)} faults" if faults else "done: everything is as expected")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
