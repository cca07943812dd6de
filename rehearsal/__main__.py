"""Runs the rehearsal: `python -m rehearsal`. Every line it prints is something that was seen to be so."""

import argparse
import io
import os
import signal
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
BUCKETS = ("chips", "models", "embeddings", "work", "logs")
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
        environment = self._environment(scratch, port, endpoint)
        with ThreadPoolExecutor(1) as pool:  # the bucket is filled while Dagster starts
            filled = pool.submit(self._fill, scratch)
            self.api = DagsterApi(stack.enter_context(servers.dagster(scratch, environment, PROJECT)))
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
        self.say(f"{len(self.cast.tiles)} tiles and a checkpoint lie on S3")

    def _environment(self, scratch: Path, postgres_port: int, endpoint: str) -> dict[str, str]:
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
            "CLAY_TILES": str(manifest),
            "CLAY_TILES_PER_RUN": str(TILES_PER_RUN),
            "XDG_CACHE_HOME": str(scratch / "cache"),
            "PYTHONUNBUFFERED": "1",
        }

    def chips_read(self) -> int:
        """GET requests for chips that the S3 server has answered so far."""
        return sum("GET /chips/" in line and ".tif" in line for line in self._s3_log.read_text().splitlines())

    def backfill(self, title: str) -> str:
        """Launch a backfill of all tiles and wait until it has ended; returns its id."""
        backfill = self.api.launch_backfill(self.cast.tiles, title)
        status = self.api.wait_for_backfill(backfill, BACKFILL_TIMEOUT_S)
        self.say(f"backfill “{title}” has ended: {status}")
        if not self.api.failure_reasons(backfill):  # two tiles are meant to fail
            raise SystemExit(
                "FAILED: no tile says why it failed\n" + "\n".join(self.api.step_errors(backfill))
            )
        return backfill

    def verify_statuses(self) -> None:
        """Good tiles are materialized, the two others failed, and each event is there once."""
        good, bad = sorted(self.cast.good), sorted({self.cast.empty, self.cast.broken})
        statuses = self.api.partition_statuses("chip_embeddings")
        expect("tiles materialized", sorted(statuses["materialized"]), good)
        expect("tiles failed", sorted(statuses["failed"]), bad)
        published = self.api.partition_statuses("embeddings_geoparquet")
        expect("tiles published", sorted(published["materialized"]), good)
        self.say(f"{len(good)} tiles are materialized, {len(bad)} failed")

    def verify_once(self, times: int) -> None:
        """Each good tile has as many materializations of each asset as there were backfills."""
        for asset in ASSETS:
            events = self.api.materializations(asset, self.cast.good)
            counts = Counter(event["partition"] for event in events)
            expect(f"materializations of {asset}", dict(counts), dict.fromkeys(self.cast.good, times))
        self.say(f"each good tile has exactly {times} materialization of each asset, one a backfill")

    def verify_reasons(self, backfill: str) -> None:
        """The failed tiles say why."""
        reasons = self.api.failure_reasons(backfill)
        expect("failed tiles with a reason", sorted(reasons), sorted({self.cast.empty, self.cast.broken}))
        for tile, phrase in ((self.cast.empty, "has no chips"), (self.cast.broken, "can be used")):
            expect(f"reason of {tile} says “{phrase}”", phrase in reasons[tile], True)
            self.say(f"{tile}: {reasons[tile][:150]}")

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
        self.say(f"{len(names)} files hold {sum(rows.values())} rows")

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
    first = rehearsal.backfill("all tiles")
    rehearsal.verify_statuses()
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
    rehearsal.take_pictures()
    if wait is not None:
        wait(f"{rehearsal.api.url} serves until Enter is pressed ")
    rehearsal.say("all is as it should be")


if __name__ == "__main__":
    sys.exit(main())
