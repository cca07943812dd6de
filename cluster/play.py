"""What happens in the cluster, scene by scene, and what is expected of each."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from cluster.machines import TILES_PER_RUN, Machines
from cluster.observing import Embedded, embedded_since, wait_until, workers_of_runs
from cluster.ray_nodes import RayWorker
from cluster.scene import CHIPS, TILES
from rehearsal.__main__ import expect
from rehearsal.scene import DATES

BACKFILL_TIMEOUT_S = 420
MIDWAY = 2
"""Tiles of its run that the worker has finished when it vanishes."""


class Cluster:
    """A cluster whose hosts run, and what it is asked to do."""

    def __init__(self, machines: Machines, workers: int = 2) -> None:
        """Start Dagster.

        Args:
            machines: The hosts.
            workers: That there are as a rule.
        """
        self.machines = machines
        self.say = machines.say
        self.api = machines.start_dagster(workers)

    def play(self) -> None:
        """Everything that `make cluster` shows."""
        alone = self.machines.embed_alone()
        self.say(f"one process alone has made {len(alone)} files")
        self.machines.add_worker()
        self.machines.add_worker()
        self.spread(alone)
        self.lose_one(alone)
        self.say(
            f"all is as it should be: {len(TILES)} tiles over two workers, then with one lost and one joined;"
            f" no finished tile was done twice, and the {len(alone)} files are one machine's, byte for byte"
        )

    def spread(self, alone: Mapping[str, str]) -> None:
        """A backfill spreads over both workers."""
        started = self.begin()
        self.wait_for(self.launch("over two workers"))
        events = embedded_since(self.api, TILES, started)
        self.show_hosts(events, expected=2)
        expect("materializations of each tile", Counter(event.tile for event in events), Counter(TILES))
        reads = self.machines.reads.by_tile()
        expect(
            "chips by the times they were read",
            Counter(sum(map(Counter, reads.values()), Counter()).values()),
            {1: _chips()},
        )
        expect("files as one machine makes them", self.machines.files("embeddings"), alone)
        self.say(
            f"{_chips()} chips were read, each once; {len(alone)} files, byte for byte those of one process"
        )

    def lose_one(self, alone: Mapping[str, str]) -> None:
        """The same with a worker that vanishes midway, and another that joins."""
        self.machines.forget_results()
        started = self.begin()
        backfill = self.launch("with a loss")
        lost, run = self.wait_for_midway(started)
        lost.vanish()
        self.say(f"{lost.host.name} has vanished in the middle of its run")
        self.machines.add_worker()
        self.wait_for(backfill)
        events = embedded_since(self.api, TILES, started)
        self.show_hosts([event for event in events if event.encoded], expected=3)
        self.verify_nothing_redone(events, {event.tile for event in events if event.run == run})
        expect("files as one machine makes them", self.machines.files("embeddings"), alone)
        self.say(f"{len(alone)} files, byte for byte those of one process")

    def begin(self) -> float:
        """Count from here; returns the time in seconds since 1970."""
        self.machines.reads.skip()
        return time.time()

    def launch(self, title: str) -> str:
        """Launch a backfill of all tiles; returns its id."""
        backfill = self.api.launch_backfill(TILES, title)
        self.say(f"backfill “{title}” of {len(TILES)} tiles")
        return backfill

    def wait_for(self, backfill: str) -> None:
        """Wait until a backfill has ended well."""
        status = self.api.wait_for_backfill(backfill, BACKFILL_TIMEOUT_S)
        self.say(f"the backfill has ended: {status}")
        if status != "COMPLETED_SUCCESS":
            raise SystemExit("FAILED: the backfill\n" + "\n".join(self.api.step_errors(backfill)))

    def wait_for_midway(self, started: float) -> tuple[RayWorker, str]:
        """Wait until a worker is in the middle of a run; returns it and the run's id."""
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

        wait_until(midway, 120, "no run is in its middle")
        return found[0]

    def show_hosts(self, events: Sequence[Embedded], expected: int) -> None:
        """Say which host embedded which tiles, by the metadata, and see that Ray and S3 tell the same."""
        workers = workers_of_runs(self.machines.ray.jobs)
        tiles: dict[str, list[str]] = defaultdict(list)
        for event in sorted(events, key=lambda event: event.tile):
            tiles[workers[event.run]].append(event.tile)
            if self.machines.separate:
                expect(f"host in the metadata of {event.tile}", event.host, workers[event.run])
        for worker, done in sorted(tiles.items()):
            self.say(f"{worker} embedded {len(done)} tiles: {' '.join(done)}")
        expect("workers that embedded tiles", len(tiles), expected)
        if self.machines.separate:
            known = {worker.host.address: name for name, worker in self.machines.workers.items()}
            fetched = self.machines.reads.addresses()
            for event in events:
                came_from = {known[address] for address in fetched[event.tile]}
                expect(f"{event.host} fetched the chips of {event.tile}", event.host in came_from, True)

    def verify_nothing_redone(self, events: Sequence[Embedded], finished: set[str]) -> None:
        """Chips of the tiles that the lost run had finished were read once and embedded once.

        A run fetches chips of the next tiles while it embeds; those on their way are lost with the machine.
        """
        times = {tile: max(reads.values()) for tile, reads in self.machines.reads.by_tile().items()}
        expect("tiles whose chips were read", sorted(times), sorted(TILES))
        again = {tile for tile, most in times.items() if most > 1}
        expect("finished tiles whose chips were read again", again & finished, set())
        encoded: Counter[str] = Counter()
        for event in events:
            encoded[event.tile] += event.encoded
        expect(
            "chips of finished tiles that were embedded",
            {tile: encoded[tile] for tile in finished},
            dict.fromkeys(finished, CHIPS * len(DATES)),
        )
        expect(
            "more tiles read again than the run had left", len(again) > TILES_PER_RUN - len(finished), False
        )
        self.say(f"of its run it had finished {' '.join(sorted(finished))}: no chip of these was read again")
        self.say(f"chips on their way were read again, of {' '.join(sorted(again)) or 'no tile'}")


def _chips() -> int:
    return len(TILES) * CHIPS * len(DATES)
