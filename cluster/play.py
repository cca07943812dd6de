"""The checks of the cluster: a backfill over two workers, then one with a worker lost and another joined."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from cluster.machines import TILES, TILES_PER_RUN, Machines
from cluster.observing import Embedded, embedded_since, workers_of_runs
from cluster.ray_nodes import RayWorker
from rehearsal.backend import expect, wait_until
from rehearsal.scene import CHIPS, DATES

BACKFILL_TIMEOUT_S = 420
MIDWAY = 2
"""Tiles of its run that the worker has finished when it disappears."""

CHIPS_OF_TILE = CHIPS * len(DATES)


class Cluster:
    """A running cluster, and the checks to run on it."""

    def __init__(self, machines: Machines, workers: int = 2) -> None:
        """Start Dagster.

        Args:
            machines: The hosts.
            workers: Number of workers, and so of concurrent runs.
        """
        self.machines = machines
        self.say = machines.say
        self.api = machines.start_dagster(workers)

    def play(self) -> None:
        """Run everything that `make cluster` shows."""
        alone = self.machines.embed_alone()
        self.say(f"one process alone has published {len(alone)} files")
        self.machines.add_worker()
        self.machines.add_worker()
        self.spread(alone)
        self.lose_one(alone)
        self.say(
            f"done: {len(TILES)} tiles over two workers, then with one lost and one joined; no finished tile"
            f" was embedded twice, and the {len(alone)} files are identical to those of one process"
        )

    def spread(self, alone: Mapping[str, str]) -> None:
        """Check that a backfill uses both workers."""
        started = self.begin()
        self.wait_for(self.launch("over two workers"))
        events = embedded_since(self.api, TILES, started)
        self.verify_hosts(events, expected=2)
        expect("materializations of each tile", Counter(event.tile for event in events), Counter(TILES))
        reads = sum(self.machines.reads.by_tile().values(), Counter[str]())
        chips = len(TILES) * CHIPS_OF_TILE
        expect("number of reads → chips", Counter(reads.values()), {1: chips})
        self.say(f"{chips} chips were read, each once")
        self.verify_files(alone)

    def lose_one(self, alone: Mapping[str, str]) -> None:
        """Check the same while a worker disappears midway and another one joins."""
        self.machines.forget_results()
        started = self.begin()
        backfill = self.launch("with a lost worker")
        lost, run = self.wait_for_midway(started)
        lost.vanish()
        self.say(f"{lost.host.name} has disappeared in the middle of its run")
        self.machines.add_worker()
        self.wait_for(backfill)
        events = embedded_since(self.api, TILES, started)
        self.verify_hosts([event for event in events if event.encoded], expected=3)
        self.verify_nothing_redone(events, {event.tile for event in events if event.run == run})
        self.verify_files(alone)

    def verify_files(self, alone: Mapping[str, str]) -> None:
        """Check that the published files are identical to those of one process."""
        expect("files and their ETags", self.machines.files("cluster"), alone)
        self.say(f"{len(alone)} files, identical to those of one process")

    def begin(self) -> float:
        """Start counting requests and return the time in seconds since 1970."""
        self.machines.reads.skip()
        return time.time()

    def launch(self, title: str) -> str:
        """Launch a backfill of all tiles and return its id."""
        backfill = self.api.launch_backfill(TILES, title)
        self.say(f"backfill “{title}” of {len(TILES)} tiles")
        return backfill

    def wait_for(self, backfill: str) -> None:
        """Wait until a backfill has succeeded."""
        status = self.api.wait_for_backfill(backfill, BACKFILL_TIMEOUT_S)
        self.say(f"the backfill has ended: {status}")
        if status != "COMPLETED_SUCCESS":
            raise SystemExit("FAILED: the backfill\n" + "\n".join(self.api.step_errors(backfill)))

    def wait_for_midway(self, started: float) -> tuple[RayWorker, str]:
        """Wait until a worker is in the middle of a run; return the worker and the run's id."""
        found: list[tuple[RayWorker, str]] = []

        def midway() -> bool:
            tiles: dict[str, set[str]] = defaultdict(set)
            for event in embedded_since(self.api, TILES, started):
                tiles[event.run].add(event.tile)
            running = [run for run, finished in tiles.items() if MIDWAY <= len(finished) < MIDWAY + 2]
            if running:
                worker = self.machines.workers[workers_of_runs(self.machines.ray.jobs)[running[0]]]
                found.append((worker, running[0]))
            return bool(running)

        wait_until(midway, 120, "a run in its middle")
        return found[0]

    def verify_hosts(self, events: Sequence[Embedded], expected: int) -> None:
        """Check that metadata, Ray and the S3 server's log name the same host for each tile."""
        workers = workers_of_runs(self.machines.ray.jobs)
        tiles: dict[str, list[str]] = defaultdict(list)
        for event in sorted(events, key=lambda event: event.tile):
            tiles[workers[event.run]].append(event.tile)
        for worker, done in sorted(tiles.items()):
            self.say(f"{worker} embedded {len(done)} tiles: {' '.join(done)}")
        expect("workers that embedded tiles", len(tiles), expected)
        if self.machines.separate:
            addresses = {name: worker.host.address for name, worker in self.machines.workers.items()}
            fetched = self.machines.reads.addresses()
            for event in events:
                expect(f"host in the metadata of {event.tile}", event.host, workers[event.run])
                came = addresses[event.host] in fetched[event.tile]
                expect(f"{event.host} fetched the chips of {event.tile}", came, True)

    def verify_nothing_redone(self, events: Sequence[Embedded], finished: set[str]) -> None:
        """Check that chips of tiles that the lost run had finished were read once and embedded once.

        A run fetches chips of the next tiles while it embeds; those of the lost run are read again.
        """
        times = {tile: max(reads.values()) for tile, reads in self.machines.reads.by_tile().items()}
        expect("tiles whose chips were read", sorted(times), sorted(TILES))
        again = {tile for tile, most in times.items() if most > 1}
        expect("finished tiles whose chips were read again", again & finished, set())
        encoded: Counter[str] = Counter()
        for event in events:
            encoded[event.tile] += event.encoded
        expect(
            "embedded chips of finished tiles",
            {tile: encoded[tile] for tile in finished},
            dict.fromkeys(finished, CHIPS_OF_TILE),
        )
        remaining = TILES_PER_RUN - len(finished)
        expect("more tiles read again than the run had remaining", len(again) > remaining, False)
        self.say(f"the lost run had finished {' '.join(sorted(finished))}: no chip of these was read again")
        self.say(f"chips that it had prefetched were read again, of {' '.join(sorted(again)) or 'no tile'}")
