"""Runs the rehearsal: `python -m rehearsal`. Every line it prints was observed in this run."""

import argparse
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import botocore.session
import pyarrow.parquet as pq

from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.storage import S3Options, Store
from rehearsal import servers
from rehearsal.dagster_api import ASSETS, DagsterApi
from rehearsal.scene import CHIPS, DATES, Cast, add_new_chips, assemble_cast, write_chips
from rehearsal.screenshots import browsing, chromium

PROJECT = Path(__file__).resolve().parent.parent
BUCKETS = ("chips", "models", "embeddings", "stac", "work", "logs")
TILES_PER_RUN = 20
BACKFILL_TIMEOUT_S = 240


class Rehearsal:
    """One rehearsal: servers that run, a bucket that is filled, and what is asked of them."""

    def __init__(self, scratch: Path, pictures: Path, stack: ExitStack) -> None:
        self._started = time.monotonic()
        self.pictures = pictures
        self.cast: Cast = assemble_cast()
        port = stack.enter_context(servers.postgres(scratch))
        self.say(f"PostgreSQL runs on port {port}")
        endpoint, self._s3_log = stack.enter_context(servers.s3(scratch))
        self.say(f"an S3 server runs at {endpoint}")
        self._s3 = S3Options(
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal",  # noqa: S106 - of a loopback server that takes any
        )
        self._environment = self._settings(scratch, port, endpoint)
        with ThreadPoolExecutor(1) as pool:  # the bucket is filled while Dagster starts
            filled = pool.submit(self._fill, scratch)
            self.api = DagsterApi(stack.enter_context(servers.dagster(scratch, self._environment, PROJECT)))
            self.say(f"dagster-webserver and dagster-daemon run, {self.api.url}")
            filled.result()

    def say(self, what: str) -> None:
        """Print a line with the time since the start."""
        print(f"{time.monotonic() - self._started:6.1f} s  {what}", flush=True)

    def store(self, bucket: str) -> Store:
        """A bucket of the S3 server."""
        return Store(f"s3://{bucket}", self._s3)

    def _fill(self, scratch: Path) -> None:
        options = {"region_name": "us-east-1", "endpoint_url": self._s3.endpoint_url}
        options |= {"aws_access_key_id": "rehearsal", "aws_secret_access_key": "rehearsal"}
        client = botocore.session.get_session().create_client("s3", **options)
        for bucket in BUCKETS:
            client.create_bucket(Bucket=bucket)
        write_chips(self.store("chips"), self.cast)
        checkpoint = scratch / "tiny.ckpt"
        write_untrained_checkpoint(checkpoint, model_size="tiny")
        self.store("models").put("tiny.ckpt", checkpoint)
        self.say(f"{len(self.cast.tiles)} tiles and a checkpoint are on S3")

    def _settings(self, scratch: Path, postgres_port: int, endpoint: str) -> dict[str, str]:
        home = scratch / "dagster"
        home.mkdir()
        settings = (PROJECT / "deploy" / "dagster-production.yaml").read_text()
        (home / "dagster.yaml").write_text(settings)
        manifest = scratch / "tiles.txt"
        manifest.write_text("\n".join(self.cast.tiles) + "\n")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CLAY_", "AWS_"))},
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://dagster@127.0.0.1:{postgres_port}/dagster",
            "DAGSTER_LOGS_BUCKET": "logs",
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "rehearsal",
            "CLAY_CHIPS_URI": "s3://chips",
            "CLAY_CHECKPOINT": "s3://models/tiny.ckpt",
            "CLAY_OUTPUT_URI": "s3://embeddings",
            "CLAY_WORK_URI": "s3://work",
            "CLAY_STAC_URI": "s3://stac",
            "CLAY_ALLOW_UNTRAINED": "1",
            "CLAY_TILES": str(manifest),
            "CLAY_TILES_PER_RUN": str(TILES_PER_RUN),
            "XDG_CACHE_HOME": str(scratch / "cache"),
            "PYTHONUNBUFFERED": "1",
        }

    def chips_read(self) -> int:
        """GET requests for chips that the S3 server has answered so far."""
        return sum("GET /chips/" in line and ".tif" in line for line in self._s3_log.read_text().splitlines())

    def backfill(self, title: str, *, watch: bool = False) -> str:
        """Launch a backfill of all tiles and wait until it has ended; returns its id.

        Args:
            title: Of the backfill.
            watch: Whether to see the first file in the bucket before its run has ended.
        """
        backfill = self.api.launch_backfill(self.cast.tiles, title)
        if watch:
            self.watch_first_file(backfill)
        status = self.api.wait_for_backfill(backfill, BACKFILL_TIMEOUT_S)
        self.say(f"backfill “{title}” has ended: {status}")
        if not self.api.failure_reasons(backfill):  # one tile is meant to fail
            raise SystemExit(
                "FAILED: no tile says why it failed\n" + "\n".join(self.api.step_errors(backfill))
            )
        return backfill

    def watch_first_file(self, backfill: str) -> None:
        """A tile is published and recorded while its run goes on."""
        deadline = time.monotonic() + BACKFILL_TIMEOUT_S
        while not (files := self.store("embeddings").list()) and time.monotonic() < deadline:
            time.sleep(0.1)
        expect("a file of the first run", bool(files), True)
        running = self.api.running(backfill)
        expect("runs that have ended when the first file is in the bucket", self.api.ended(backfill), [])
        expect("runs in progress when the first file is in the bucket", bool(running), True)
        self.say(f"{Path(files[0].url).name} is in the bucket while its run is {running[0]}")

    def verify_statuses(self) -> None:
        """All tiles but the broken one are materialized, the empty one with 0 chips."""
        done = sorted({*self.cast.good, self.cast.empty})
        for asset in ASSETS[1:]:
            statuses = self.api.partition_statuses(asset)
            expect(f"tiles of {asset} materialized", sorted(statuses["materialized"]), done)
            expect(f"tiles of {asset} failed", sorted(statuses["failed"]), [self.cast.broken])
        self.say(f"{len(done)} tiles are materialized, one of them without chips; 1 failed")

    def verify_same_runs(self) -> None:
        """The run that embedded a tile published it, also where another tile of the run failed."""
        runs = [
            {event["partition"]: event["runId"] for event in self.api.materializations(asset, self.cast.good)}
            for asset in ASSETS
        ]
        expect("runs that published", runs[2], runs[1])
        broken = self.cast.tiles.index(self.cast.broken) // TILES_PER_RUN
        neighbour = next(
            tile for tile in self.cast.good if self.cast.tiles.index(tile) // TILES_PER_RUN == broken
        )
        expect("run of the failed tile", self.api.status_of(runs[2][neighbour]), "FAILURE")
        self.say(
            f"{len(set(runs[2].values()))} runs embedded and published all good tiles; one of them failed"
        )

    def verify_once(self, times: int) -> None:
        """Each good tile has as many materializations of each asset as it had runs."""
        for asset in ASSETS:
            events = self.api.materializations(asset, self.cast.good)
            counts = Counter(event["partition"] for event in events)
            expect(f"materializations of {asset}", dict(counts), dict.fromkeys(self.cast.good, times))
        self.say(f"each good tile has exactly {times} materialization of each asset, one a run")

    def verify_reasons(self, backfill: str) -> None:
        """The failed tile says why."""
        reasons = self.api.failure_reasons(backfill)
        expect("failed tiles with a reason", list(reasons), [self.cast.broken])
        reason = reasons[self.cast.broken]
        expect("the reason says that no chip can be used", "can be used" in reason, True)
        self.say(f"{self.cast.broken}: {reason[:150]}")

    def verify_files(self) -> None:
        """Every good tile has one file, with the rows that its chips give."""
        store = self.store("embeddings")
        first, last = (date.replace("-", "") for date in DATES)
        names = [f"{tile}_{first}_{last}_v001.gpq" for tile in self.cast.good]
        expect("files", [Path(item.url).name for item in store.list()], names)
        rows = {
            tile: pq.read_metadata(io.BytesIO(store.read(name))).num_rows
            for tile, name in zip(self.cast.good, names, strict=True)
        }
        expect("rows", rows, {tile: self.cast.rows(tile) for tile in self.cast.good})
        items = [Path(item.url).name for item in self.store("stac").list("v001/items/")]
        expect(
            "STAC Items",
            sorted(name for name in items if name.endswith(".json")),
            [name.replace(".gpq", ".json") for name in names],
        )
        self.say(f"{len(names)} files hold {sum(rows.values())} rows; each has its STAC Item")

    def verify_range(self) -> None:
        """A range on the command line with an empty tile in it publishes the others."""
        at = self.cast.tiles.index(self.cast.empty)
        first, last = self.cast.tiles[at - 2], self.cast.tiles[at + 1]
        environment = {**self._environment, "CLAY_TILES_PER_RUN": "0", "CLAY_VERSION": "2"}
        command = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize"]
        command += [
            "-m",
            "clay_assets.definitions",
            "--select",
            "*",
            "--partition-range",
            f"{first}...{last}",
        ]
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        expect(
            "status of the command",
            (done.returncode, done.stderr[-2000:] if done.returncode else ""),
            (0, ""),
        )
        names = sorted(
            Path(item.url).name[:5] for item in self.store("embeddings").list() if "_v002" in item.url
        )
        expect(
            "tiles of the range published",
            names,
            sorted({*self.cast.tiles[at - 2 : at + 2]} - {self.cast.empty}),
        )
        self.say(
            f"a range on the command line, {first}...{last}, published {len(names)} of 4 tiles; one is empty"
        )

    def verify_schedule(self) -> None:
        """New chips in three tiles, and a tick of the schedule asks for exactly those."""
        before = self.api.schedule_tick("new_imagery_daily")
        expect("requests of a tick before new chips", before["runRequests"] or [], [])
        self.say(f"a tick of the schedule requests nothing: {before['skipReason']}")
        add_new_chips(self.store("chips"), self.cast)
        after = self.api.schedule_tick("new_imagery_daily")
        requested = [tile for request in after["runRequests"] for tile in _tiles_of(request, self.cast)]
        expect("tiles requested after new chips", requested, sorted(self.cast.renewed))
        self.say(f"with new chips in three tiles it requests {', '.join(requested)}")

    def take_pictures(self) -> None:
        """What a person sees: the asset graph, an asset's plots, a tile's materialization and its picture."""
        self.api.dismiss_welcome()
        tile, embeddings = self.cast.mixed, f"{self.api.url}/assets/chip_embeddings"
        with browsing() as page:
            page.open(f"{self.api.url}/asset-groups", shows="embeddings_geoparquet")
            page.save(self.pictures / "asset-graph.png")
            page.open(f"{embeddings}?view=overview", shows="Latest materialization")
            page.save(self.pictures / "asset.png")
            page.open(f"{embeddings}?view=partitions&partition={tile}", shows="skipped chips", height=1500)
            page.save(self.pictures / "tile.png")
            page.click("[Show Markdown]", after="picture")
            page.save(self.pictures / "tile-picture.png")
        self.say(f"four pictures of the UI are in {self.pictures}")


def _tiles_of(request: dict[str, object], cast: Cast) -> list[str]:
    """The tiles of a run request: one partition, or a range of neighbours in the manifest."""
    pairs = request["tags"]
    assert isinstance(pairs, list)  # noqa: S101 - what Dagster's schema promises
    tags = {pair["key"]: pair["value"] for pair in pairs}
    if "dagster/partition" in tags:
        return [tags["dagster/partition"]]
    first = cast.tiles.index(tags["dagster/asset_partition_range_start"])
    last = cast.tiles.index(tags["dagster/asset_partition_range_end"])
    return list(cast.tiles[first : last + 1])


def expect(what: str, got: object, wanted: object) -> None:
    """Stop where something is not as it should be.

    Raises:
        SystemExit: If the two differ.
    """
    if got != wanted:
        raise SystemExit(f"FAILED: {what}\n  expected {wanted}\n  got      {got}")


def main() -> int:
    """Run the rehearsal; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal", description=__doc__)
    parser.add_argument(
        "--pictures", type=Path, default=PROJECT / "build" / "pictures", help="folder for the screenshots"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the servers running until Enter is pressed"
    )
    arguments = parser.parse_args()
    # As a shell's background job we would ignore SIGINT, and so would all that we start: Dagster's runs stop
    # the followers of their logs by it, and would wait half a minute for each.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        chromium()
        servers.find_postgres()
    except servers.MissingPackage as error:
        print(error, file=sys.stderr)
        return 2
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="clay-rehearsal-") as folder, ExitStack() as stack:
        play(Rehearsal(Path(folder), arguments.pictures, stack), wait=input if arguments.keep else None)
    return 0


def play(rehearsal: Rehearsal, wait: Callable[[str], str] | None) -> None:
    """The rehearsal, scene by scene."""
    first = rehearsal.backfill("all tiles", watch=True)
    rehearsal.verify_statuses()
    rehearsal.verify_same_runs()
    rehearsal.verify_once(times=1)
    rehearsal.verify_reasons(first)
    rehearsal.verify_files()
    read = rehearsal.chips_read()
    chips = (len(rehearsal.cast.tiles) - 1) * CHIPS * len(DATES)
    expect("chips read by the first backfill", read, chips)
    rehearsal.say(f"{read} chips were read, each once")
    rehearsal.backfill("all tiles once more")
    rehearsal.verify_statuses()
    rehearsal.verify_once(times=2)
    expect("chips read by the second backfill", rehearsal.chips_read() - read, 0)
    rehearsal.say("the second backfill read no chip")
    rehearsal.verify_schedule()
    rehearsal.verify_range()
    rehearsal.take_pictures()
    if wait is not None:
        wait(f"{rehearsal.api.url} serves until Enter is pressed ")
    rehearsal.say("all is as it should be")


if __name__ == "__main__":
    sys.exit(main())
