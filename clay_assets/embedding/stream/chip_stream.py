"""`ChipStream`: embeds the chips of many tiles in one pipeline; bounds memory, and can be stopped early."""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from threading import Condition, Semaphore, Thread
from typing import Self

from clay_assets.chips import MAX_NODATA
from clay_assets.embedding.stream.device_loop import DeviceLoop, StreamClock
from clay_assets.embedding.stream.ready_chips import ChipReader, ReadyQueue, StreamTile
from clay_assets.results.outcomes import Outcome
from clay_assets.storage import StoredObject
from clay_model import Embedder, Level

# Chips fetched at a time, in addition to those being decoded: 16 x 9 MB in 100 ms each are 1.4 GB/s.
FETCHERS = 16
# Batches embedded before the consumer takes their outcomes, so that the devices do not wait while a tile is
# written. They are lost if the process is killed.
BATCHES_AHEAD = 16
OUTCOMES_AHEAD_BYTES = 256 * 2**20  # maximum bytes of vectors in such batches
# Seconds that a run which ends with an error or an interrupt waits for transfers in progress. Their chips are
# lost in any case, and an unresponsive network would delay the end by minutes.
GIVE_UP_S = 5.0


class ChipStream:
    """Embeds the chips of many tiles, in order, in one pipeline.

    `add` tiles, take their `results` in the same order, `finish` after the last. Use as a context manager:
    leaving it, also early, stops all its threads. It then waits for the batches in progress, and for
    transfers at most `GIVE_UP_S`. `clock` tells how the devices spent their time.
    """

    def __init__(
        self,
        *,
        read: Callable[[StoredObject], bytes],
        embedders: Sequence[Embedder],
        level: Level,
        batch_size: int,
        max_nodata: float = MAX_NODATA,
        fetchers: int = FETCHERS,
        decoders: int = 0,
    ) -> None:
        """Set up the pipeline; its threads start when the context is entered.

        Each embedder gets a thread, and takes the next batch of `batch_size` windows when it is free. `read`
        returns a chip's bytes; many threads call it: `fetchers` chips are fetched while `decoders` others are
        decoded (0: as many as the devices need). Chips with a share of pixels without data above
        `max_nodata`, 0 to 1, are skipped.
        """
        first = embedders[0]
        for_gpu = any(embedder.device.type == "cuda" for embedder in embedders)
        self._reader = ChipReader(read, first.spec, max_nodata, for_gpu, decoders)
        workers = fetchers + self._reader.decoders
        self.clock = StreamClock()
        # Chips with pixels in memory, or soon: those in the workers and, per device, a batch being computed,
        # one being transferred and one ready. More would only fill memory.
        slots = workers + 3 * batch_size * len(embedders)
        self._slots = Semaphore(slots)
        # Chips started whose outcome was not taken yet: with as many added ahead, the devices do not wait.
        vector_bytes = 4 * math.prod(first.spec.embedding_shape(level, first.dimensions.dim))
        ahead = min(BATCHES_AHEAD * batch_size * len(embedders), OUTCOMES_AHEAD_BYTES // vector_bytes)
        self.capacity = slots + ahead
        self._untaken = Semaphore(self.capacity)
        self._ready = ReadyQueue()
        self._changed = Condition()  # guards those below, and that futures are queued in order
        self._tiles: dict[str, StreamTile] = {}  # added, results not all taken
        self._jobs: deque[tuple[StreamTile, StoredObject]] = deque()
        self._finished = False  # no more tiles will be added
        self._closed = False
        loops = [
            DeviceLoop(embedder, self._ready, level=level, batch_size=batch_size, clock=self.clock)
            for embedder in embedders
        ]
        targets = {f"fetch-{index}": self._fetch for index in range(workers)}
        targets |= {f"encode-{index}": loop.run for index, loop in enumerate(loops)}
        self._threads = [Thread(target=target, name=name, daemon=True) for name, target in targets.items()]

    def __enter__(self) -> Self:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:  # the system's limit on threads
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close(patience=None if kind is None else GIVE_UP_S)

    def add(self, tile: str, chips: Sequence[StoredObject]) -> None:
        """Queue a tile's chips behind those added before.

        Raises:
            ValueError: If the tile was added before and its results were not taken, or after `finish`.
        """
        with self._changed:
            if tile in self._tiles or self._finished:
                raise ValueError(f"tile {tile} was added twice, or after finish()")
            added = self._tiles[tile] = StreamTile(tile, len(chips))
            self._jobs.extend((added, chip) for chip in chips)
            self._changed.notify_all()

    def finish(self) -> None:
        """Declare that no more tiles will be added: once all are done, the threads end."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def results(self, tile: str, unread: list[Outcome] | None = None) -> Generator[Outcome]:
        """Yield the outcome of each chip of a tile, in the order given; wait for each.

        Tiles must be taken in the order in which they were added. Stopping early, or asking for a later
        tile, abandons the rest: chips in progress are dropped, and outcomes that were not yielded yet are
        added to `unread`. One slow chip may hold back the outcomes of many others.

        Raises:
            StorageError: If a chip could not be fetched; the rest of the tile is abandoned.
            EncodingFailed: If the network could not embed a chip.
            ValueError: If the tile was not added, or its results were taken already.
        """
        names = list(self._tiles)
        if tile not in names:
            raise ValueError(
                f"got tile {tile}, expected one of the remaining, in their order:"
                f" {', '.join(names[:5]) or 'none'}{', …' if len(names) > 5 else ''}"
            )
        for earlier in names[: names.index(tile)]:
            self._abandon(self._tiles[earlier])
        return self._take(self._tiles[tile], [] if unread is None else unread)

    def _take(self, tile: StreamTile, unread: list[Outcome]) -> Generator[Outcome]:
        try:
            for _ in range(tile.chips):
                outcome = tile.outcomes.get()
                try:
                    yield outcome.result()
                finally:
                    self._untaken.release()
        finally:
            unread += self._abandon(tile)

    def _abandon(self, tile: StreamTile) -> list[Outcome]:
        """Start no more chips of a tile, drop those in progress, and return the outcomes of the others."""
        with self._changed:
            tile.abandoned = True
            self._jobs = deque(job for job in self._jobs if job[0] is not tile)
            if self._tiles.get(tile.name) is tile:
                del self._tiles[tile.name]
        for chip in self._ready.discard(tile.name):
            chip.outcome.cancel()
        finished = []
        while not tile.outcomes.empty():
            outcome = tile.outcomes.get()
            self._untaken.release()
            if outcome.done() and not outcome.cancelled() and outcome.exception() is None:
                finished.append(outcome.result())
        return finished

    def _close(self, patience: float | None = None) -> None:
        """Stop the threads; do not wait for transfers longer than `patience` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._ready.close()
        for permits in (self._untaken, self._slots):
            permits.release(len(self._threads))  # wakes every fetcher
        deadline = None if patience is None else time.monotonic() + patience
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                fetches = thread.name.startswith("fetch")
                thread.join(max(0.0, deadline - time.monotonic()) if deadline and fetches else None)
        self._reader.pool.shutdown()  # waits for the chips being decoded

    def _fetch(self) -> None:
        """Fetch chips, in a thread of its own; each chip holds a slot until its outcome is known."""
        while True:
            self._untaken.acquire()
            self._slots.acquire()
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._finished or self._closed)
                if self._closed or not self._jobs:
                    self._slots.release()  # so that the next fetcher ends too
                    self._untaken.release()
                    self._ready.all_announced()
                    return
                tile, source = self._jobs.popleft()
                outcome: Future[Outcome] = Future()
                outcome.add_done_callback(lambda _: self._slots.release())
                tile.outcomes.put(outcome)
                self._ready.announce()
            self._ready.arrive(self._reader.read(tile, source, outcome))
