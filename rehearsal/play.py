"""The rehearsal, step by step: its actions, and the expected result of each."""

import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq

from rehearsal.backend import DEPLOY, Backend, expect, materialize_range, wait_until
from rehearsal.dagster_api import ASSETS
from rehearsal.scene import BROKEN, CHIPS, DATES, EMPTY, GOOD, MIXED, RENEWED, TILES, write_chip, write_chips
from rehearsal.screenshots import browsing, take

TILES_PER_RUN = 20
BACKFILL_TIMEOUT_S = 240


class Rehearsal:
    """Running servers, a filled bucket, and the checks."""

    def __init__(self, scratch: Path, stack: ExitStack) -> None:
        """Start the servers; the bucket is filled while Dagster starts."""
        self.backend = Backend(scratch, stack, TILES)
        self.say = self.backend.say
        self.environment = self.backend.environment("results", TILES_PER_RUN)
        with ThreadPoolExecutor(1) as pool:
            filled = pool.submit(self._fill)
            self.api = self.backend.start_dagster(self.environment, DEPLOY / "dagster-production.yaml", {})
            filled.result()
        self.files = self.backend.store("results/embeddings")

    def _fill(self) -> None:
        self.backend.create_buckets("results")
        write_chips(self.backend.store("chips"))
        self.say(f"{len(TILES)} tiles and a checkpoint are on S3")

    def play(self) -> None:
        """Backfill twice, evaluate the schedule, and run a range from the command line."""
        first = self.backfill("all tiles", watch=True)
        self.verify_statuses()
        self.verify_same_runs(first)
        self.verify_once(times=1)
        self.verify_reasons(first)
        self.verify_files()
        read = self.chips_read()
        expect("chips read by the first backfill", read, (len(TILES) - 1) * CHIPS * len(DATES))
        self.say(f"{read} chips were read, each once")
        self.backfill("all tiles once more")
        self.verify_statuses()
        self.verify_once(times=2)
        expect("chips read by the second backfill", self.chips_read() - read, 0)
        self.say("the second backfill read no chip")
        self.verify_schedule()
        self.verify_range()

    def chips_read(self) -> int:
        """Return the number of GET requests for chips that the S3 server has answered so far."""
        lines = self.backend.s3_log.read_text().splitlines()
        return sum("GET /chips/" in line and ".tif" in line for line in lines)

    def backfill(self, title: str, *, watch: bool = False) -> str:
        """Launch a backfill of all tiles, wait until it has ended, and return its id.

        Args:
            title: Title of the backfill.
            watch: Whether to check that the first file is in the bucket before its run has ended.
        """
        backfill = self.api.launch_backfill(TILES, title)
        if watch:
            self.watch_first_file(backfill)
        status = self.api.wait_for_backfill(backfill, BACKFILL_TIMEOUT_S)
        self.say(f"backfill “{title}” has ended: {status}")
        if not self.api.failure_reasons(backfill):  # one tile is meant to fail
            errors = "\n".join(self.api.step_errors(backfill))
            raise SystemExit(f"FAILED: no failed tile has a reason\n{errors}")
        return backfill

    def watch_first_file(self, backfill: str) -> None:
        """Check that a tile is published while its run is in progress."""
        wait_until(lambda: bool(self.files.list()), BACKFILL_TIMEOUT_S, "a file of the first run")
        name = Path(self.files.list()[0].url).name
        statuses = set(self.api.run_statuses(backfill).values())
        expect(
            "statuses of the runs at the first file",
            statuses - {"NOT_STARTED", "QUEUED", "STARTING"},
            {"STARTED"},
        )
        self.say(f"{name} is in the bucket while its run is in progress")

    def verify_statuses(self) -> None:
        """Check that all tiles except the broken one are materialized, the empty one with 0 chips."""
        done = sorted({*GOOD, EMPTY})
        for asset in ASSETS[1:]:
            statuses = self.api.partition_statuses(asset)
            expect(f"materialized tiles of {asset}", sorted(statuses["materialized"]), done)
            expect(f"failed tiles of {asset}", sorted(statuses["failed"]), [BROKEN])
        self.say(f"{len(done)} tiles are materialized, one of them without chips; 1 failed")

    def verify_same_runs(self, backfill: str) -> None:
        """Check that the run that embedded a tile also published it, even if another of its tiles failed."""
        embedded, published = (
            {event["partition"]: event["runId"] for event in self.api.materializations(asset, GOOD)}
            for asset in ASSETS[1:]
        )
        expect("runs that published", published, embedded)
        at = TILES.index(BROKEN) // TILES_PER_RUN * TILES_PER_RUN
        neighbour = next(tile for tile in TILES[at : at + TILES_PER_RUN] if tile in GOOD)
        status = self.api.run_statuses(backfill)[published[neighbour]]
        expect("status of the run with the failed tile", status, "FAILURE")
        runs = len(set(published.values()))
        self.say(f"{runs} runs embedded and published all good tiles; one of them failed")

    def verify_once(self, times: int) -> None:
        """Check that each good tile has one materialization of each asset per run."""
        for asset in ASSETS:
            counts = Counter(event["partition"] for event in self.api.materializations(asset, GOOD))
            expect(f"materializations of {asset}", dict(counts), dict.fromkeys(GOOD, times))
        self.say(f"materializations of each good tile and asset: {times}, one per run")

    def verify_reasons(self, backfill: str) -> None:
        """Check that the failed tile has a reason."""
        reasons = self.api.failure_reasons(backfill)
        expect("failed tiles with a reason", list(reasons), [BROKEN])
        expect("the reason says that no chip can be used", "can be used" in reasons[BROKEN], True)
        self.say(f"{BROKEN}: {reasons[BROKEN][:150]}")

    def verify_files(self) -> None:
        """Check that every good tile has one file, with one row per good chip, and a STAC Item."""
        first, last = (date.replace("-", "") for date in DATES)
        stems = [f"{tile}_{first}_{last}_v001" for tile in GOOD]
        expect(
            "files", [Path(item.url).name for item in self.files.list()], [f"{stem}.gpq" for stem in stems]
        )
        rows = {
            tile: pq.read_metadata(io.BytesIO(self.files.read(f"{stem}.gpq"))).num_rows
            for tile, stem in zip(GOOD, stems, strict=True)
        }
        expect("rows", rows, {tile: CHIPS * len(DATES) - (tile == MIXED) for tile in GOOD})
        items = [Path(item.url) for item in self.backend.store("results/stac").list("v001/items/")]
        expect("STAC Items", sorted(item.stem for item in items if item.suffix == ".json"), stems)
        self.say(f"{len(stems)} files have {sum(rows.values())} rows; each has its STAC Item")

    def verify_schedule(self) -> None:
        """Check that the schedule requests exactly the tiles with new chips."""
        before = self.api.schedule_tick("new_imagery_daily")
        expect("run requests before new chips", before["runRequests"] or [], [])
        self.say(f"a tick of the schedule requests nothing: {before['skipReason']}")
        for tile in RENEWED:
            write_chip(self.backend.store("chips"), tile, DATES[1], CHIPS + 1)
        after = self.api.schedule_tick("new_imagery_daily")
        requested = [tile for request in after["runRequests"] for tile in _tiles_of(request)]
        expect("tiles requested after new chips", requested, sorted(RENEWED))
        self.say(f"with new chips in three tiles it requests {', '.join(requested)}")

    def verify_range(self) -> None:
        """Check that a range on the command line with an empty tile publishes the other tiles."""
        at = TILES.index(EMPTY)
        tiles = TILES[at - 2 : at + 2]
        home = self.backend.scratch / "dagster"
        materialize_range({**self.environment, "CLAY_VERSION": "2"}, home, tiles[0], tiles[-1])
        names = sorted(Path(item.url).name[:5] for item in self.files.list() if "_v002" in item.url)
        expect("published tiles of the range", names, sorted({*tiles} - {EMPTY}))
        result = f"published {len(names)} of {len(tiles)} tiles; one is empty"
        self.say(f"a range on the command line, {tiles[0]}...{tiles[-1]}, {result}")

    def take_pictures(self, folder: Path) -> None:
        """Save the asset graph, an asset's plots, and a tile's materialization with its picture."""
        self.api.dismiss_welcome()
        asset = f"{self.api.url}/assets/chip_embeddings"
        with browsing() as page:
            graph = f"{self.api.url}/asset-groups"
            take(page, folder / "asset-graph.png", url=graph, shows="embeddings_geoparquet")
            take(page, folder / "asset.png", url=f"{asset}?view=overview", shows="Latest materialization")
            page.set_viewport_size({"width": 1500, "height": 1500})
            tile = f"{asset}?view=partitions&partition={MIXED}"
            take(page, folder / "tile.png", url=tile, shows="skipped chips")
            take(
                page, folder / "tile-picture.png", click=("picture", "[Show Markdown]"), shows="skipped chips"
            )
        self.say(f"four pictures of the UI are in {folder}")


def _tiles_of(request: dict[str, list[dict[str, str]]]) -> list[str]:
    """Return the tiles of a run request: one partition, or a range of the manifest."""
    tags = {pair["key"]: pair["value"] for pair in request["tags"]}
    if "dagster/partition" in tags:
        return [tags["dagster/partition"]]
    first = TILES.index(tags["dagster/asset_partition_range_start"])
    last = TILES.index(tags["dagster/asset_partition_range_end"])
    return list(TILES[first : last + 1])
