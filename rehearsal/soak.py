"""A day's work in miniature: `python -m rehearsal.soak --minutes 30 --tiles 2000`.

A backfill over PostgreSQL and S3 while requests fail, runs are killed, new chips arrive and the sensor asks
for them. At the end, without faults, every chip must be in a file, once, and no server may have grown.
Belongs here: the disturbances and the account; the servers are `servers`'.
"""

import argparse
import io
import itertools
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import botocore.session
import psutil
import pyarrow.parquet as pq

from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.storage import S3Options, Store
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels
from clay_assets_tests.reliability.proxy import TRANSIENT, Fault, Proxy, at_rates, proxying
from rehearsal import servers
from rehearsal.dagster_api import DagsterApi

PROJECT = Path(__file__).resolve().parent.parent
BUCKETS = ("chips", "models", "embeddings", "stac", "work", "logs")
KEYS = {"aws_access_key_id": "soak", "aws_secret_access_key": "soak"}
DATE = "2020-06-15"

RATES: dict[Fault, float] = {
    fault: 0.01 for fault in TRANSIENT if fault != "stall"
}  # fmt: skip
"""Of the pipeline's requests; a stall would hold one for 20 s."""

KILL_EVERY_S, ARRIVE_EVERY_S, LOOK_EVERY_S = 60, 5, 5
SETTLE_S = 1_800
"""The backfill that ends the soak may take so long."""

GROWTH = 1.25
"""A server is flat whose median memory in the last third of the time is at most this times the middle's."""

SENSOR = """mutation($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
  __typename ... on Error { message } } }"""


@dataclass
class Soak:
    """Servers that run, tiles in a bucket, and what was done to them."""

    scratch: Path
    tiles: list[str]
    chance: random.Random
    started: float = field(default_factory=time.monotonic)
    chips: dict[str, int] = field(default_factory=dict)
    memory: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    kills: int = 0

    def start(self, stack: ExitStack) -> None:
        """Start the servers and fill the bucket."""
        port = stack.enter_context(servers.postgres(self.scratch))
        endpoint, _ = stack.enter_context(servers.s3(self.scratch))
        self.proxy: Proxy = stack.enter_context(proxying(endpoint))
        self.s3 = S3Options(
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS["aws_access_key_id"],
            aws_secret_access_key=KEYS["aws_secret_access_key"],
        )
        client = botocore.session.get_session().create_client(
            "s3", region_name="us-east-1", endpoint_url=endpoint, **KEYS
        )
        for bucket in BUCKETS:
            client.create_bucket(Bucket=bucket)
        self.contents = [chip_bytes(chip_pixels() + value) for value in range(20)]
        for tile in self.tiles:
            self.add_chip(tile)
        write_untrained_checkpoint(self.scratch / "tiny.ckpt", model_size="tiny")
        environment = self._environment(port)
        self.api = DagsterApi(stack.enter_context(servers.dagster(self.scratch, environment, PROJECT)))
        self.say(f"{len(self.tiles)} tiles are on S3, Dagster runs at {self.api.url}")

    def say(self, what: str) -> None:
        """Print a line with the time since the start."""
        print(f"{time.monotonic() - self.started:7.1f} s  {what}", flush=True)

    def store(self, bucket: str) -> Store:
        """A bucket, without faults."""
        return Store(f"s3://{bucket}", self.s3)

    def add_chip(self, tile: str) -> None:
        """One more chip of a tile."""
        number = self.chips[tile] = self.chips.get(tile, 0) + 1
        content = self.contents[(number + self.tiles.index(tile)) % len(self.contents)]
        self.store("chips").write(f"{tile}/{DATE}/{chip_name(number, tile=tile, date=DATE)}", content)

    def _environment(self, port: int) -> dict[str, str]:
        home = self.scratch / "dagster"
        home.mkdir()
        settings = (PROJECT / "deploy" / "dagster-production.yaml").read_text()
        # A killed run is noticed, and its place given back, within seconds rather than minutes.
        settings = settings.replace("run_monitoring:\n", "run_monitoring:\n  poll_interval_seconds: 10\n")
        settings = settings.replace("run_end_seconds: 60", "run_end_seconds: 10")
        (home / "dagster.yaml").write_text(settings)
        (self.scratch / "tiles.txt").write_text("\n".join(self.tiles) + "\n")
        ours = ("CLAY_", "AWS_", "DAGSTER_")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://dagster@127.0.0.1:{port}/dagster",
            "DAGSTER_LOGS_BUCKET": "logs",
            "AWS_ENDPOINT_URL_S3": self.proxy.url,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            **{name.upper(): value for name, value in KEYS.items()},
            **{f"CLAY_{name.upper()}_URI": f"s3://{bucket}" for name, bucket in
               {"chips": "chips", "output": "embeddings", "work": "work", "stac": "stac"}.items()},
            "CLAY_CHECKPOINT": str(self.scratch / "tiny.ckpt"),
            "CLAY_ALLOW_UNTRAINED": "1",
            "CLAY_TILES": str(self.scratch / "tiles.txt"),
            "CLAY_TILES_PER_RUN": "50",
            "XDG_CACHE_HOME": str(self.scratch / "cache"),
        }  # fmt: skip

    def disturb(self, minutes: float) -> None:
        """Let a backfill, the sensor, faults, kills and new chips go on together."""
        self.proxy.decide = at_rates(RATES, seed=14)
        location = {"repositoryLocationName": "clay_assets", "repositoryName": "__repository__"}
        self.api.ask(SENSOR, selector={**location, "sensorName": "new_imagery"})
        self.api.launch_backfill(self.tiles, "soak")
        began = time.monotonic()
        next_kill, next_chip = began + KILL_EVERY_S / 2, began
        while (now := time.monotonic()) < began + 60 * minutes:
            if now > next_kill:
                self._kill_a_run()
                next_kill = now + KILL_EVERY_S * self.chance.uniform(0.5, 1.5)
            if now > next_chip:
                self.add_chip(self.chance.choice(self.tiles))
                next_chip = now + ARRIVE_EVERY_S
            self._look_at_memory()
            time.sleep(LOOK_EVERY_S)
        faults, requests = sum(self.proxy.injected.values()), len(self.proxy.requests)
        arrived = sum(self.chips.values()) - len(self.tiles)
        self.say(
            f"{faults} of {requests} requests failed, {self.kills} runs were killed, {arrived} chips came"
        )

    def settle(self) -> None:
        """Without faults, and with a last backfill, everything must come to its end."""
        self.proxy.decide = lambda _: None
        status = self.api.wait_for_backfill(self.api.launch_backfill(self.tiles, "the rest"), SETTLE_S)
        self.say(f"the last backfill has ended: {status}")

    def account(self) -> list[str]:
        """What is amiss: chips without a row, or with two; servers that grew."""
        output = self.store("embeddings")
        rows: dict[str, list[str]] = defaultdict(list)
        for found in output.list():
            urls = pq.read_table(io.BytesIO(output.read(found)), columns=["source_url"])[
                "source_url"
            ].to_pylist()
            rows[Path(found.url).name[:5]] += urls
        amiss = [
            f"{tile}: {len(rows[tile])} rows, {len(set(rows[tile]))} of them different, for {count} chips"
            for tile, count in self.chips.items()
            if not len(rows[tile]) == len(set(rows[tile])) == count
        ]
        self.say(f"{sum(map(len, rows.values()))} rows are published for {sum(self.chips.values())} chips")
        for server, sizes in self.memory.items():
            third = max(1, len(sizes) // 3)
            middle, last = (
                statistics.median(sizes[third : 2 * third] or sizes),
                statistics.median(sizes[-third:]),
            )
            self.say(
                f"{server}: {middle:.0f} MB in the middle, {last:.0f} MB at the end, {max(sizes):.0f} at most"
            )
            if server != "run" and last > GROWTH * middle:
                amiss.append(f"{server} grew from {middle:.0f} to {last:.0f} MB")
        return amiss

    def _processes(self) -> dict[str, list[psutil.Process]]:
        kinds = {"dagster-webserver": "webserver", "dagster-daemon": "daemon", "spawn_main": "run"}
        found: dict[str, list[psutil.Process]] = defaultdict(list)
        # A run is a process that the code server spawns.
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                for text, kind in kinds.items():
                    if text in command:
                        found[kind].append(process)
                        break
        return found

    def _kill_a_run(self) -> None:
        runs = self._processes()["run"]
        if runs:
            with suppress(psutil.Error):
                self.chance.choice(runs).kill()
                self.kills += 1

    def _look_at_memory(self) -> None:
        for kind, processes in self._processes().items():
            with suppress(psutil.Error):
                self.memory[kind].append(max(process.memory_info().rss for process in processes) / 1e6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal.soak", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--tiles", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=14)
    options = parser.parse_args(arguments)
    # As a shell's background job we would ignore SIGINT, and so would all that we start, as in `__main__`.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    codes = (f"33U{column}{row}" for column in "STUVWXYZ" for row in "ABCDEFGHJKLMNPQRSTUV")
    more = (
        f"{zone}T{column}{row}"
        for zone in range(10, 30)
        for column in "STUVWX"
        for row in "ABCDEFGHJKLMNPQRSTUV"
    )
    tiles = sorted(itertools.islice(itertools.chain(codes, more), options.tiles))
    with tempfile.TemporaryDirectory(prefix="clay-soak-") as folder, ExitStack() as stack:
        soak = Soak(Path(folder), tiles, random.Random(options.seed))  # noqa: S311 - no secret
        soak.start(stack)
        soak.disturb(options.minutes)
        soak.settle()
        amiss = soak.account()
        for line in amiss:
            print(f"AMISS: {line}")
        soak.say(f"{len(amiss)} things are amiss" if amiss else "all is as it should be")
    return bool(amiss)


if __name__ == "__main__":
    sys.exit(main())
