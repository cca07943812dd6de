"""`ChipStream`: the chips of many tiles through one pipeline, outcomes in the order of the chips.

Belongs here: the bound on memory, the fetchers' threads, and what happens when somebody stops early. Does not
belong here: who gets which batch (`waiting_room.py`), how it is encoded (`device_loop.py`).
"""

import math
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clay_assets.chips import MAX_CHIP_BYTES, ChipRejected, read_chip
from clay_assets.embedding.stream.device_loop import DeviceLoop, StreamClock
from clay_assets.embedding.stream.ready_queue import ReadyChip, WaitingRoom
from clay_assets.results.outcomes import Outcome, Skipped
from clay_assets.results.picture import chip_thumbnail
from clay_assets.storage import StoredObject
from clay_model import Embedder, Level, embedding_shape

FETCHERS = 16
"""Chips fetched while as many as there are cores are decoded: 16 x 9 MB in 100 ms each are 1.4 GB/s."""

DECODERS_FOR_A_CPU = 4
"""Chips decoded at a time where a CPU embeds them."""

BATCHES_AHEAD = 16
"""Batches that may be embedded before somebody takes their outcomes, as long as those are small: so the
devices go on while a tile is written. Lost if the process is killed meanwhile."""

OUTCOMES_AHEAD_BYTES = 256 * 2**20
"""Of vectors of such batches."""


class ChipStream:
    """Embeds the chips of many tiles, in order, through one pipeline.

    Use as a context manager; leaving it stops every thread it started, also in the middle: it then waits for
    the transfers and the batches under way, and begins no others.

    Attributes:
        clock: Where the devices' time went.
    """

    def __init__(
        self,
        chips: Mapping[str, Sequence[StoredObject]],
        *,
        read: Callable[[StoredObject], bytes],
        embedders: Sequence[Embedder],
        level: Level,
        batch_size: int,
        fetchers: int = FETCHERS,
        decoders: int | None = None,
    ) -> None:
        """Describe the work; nothing starts before the context is entered.

        Args:
            chips: The chips of each tile, in the order in which tiles and chips are to be done.
            read: Fetches a chip's bytes; called from many threads.
            embedders: Each gets a thread, and the next batch when it is free; none if there are no chips.
            level: How much of a chip one vector describes.
            batch_size: Chips per forward pass.
            fetchers: Chips fetched while others are decoded.
            decoders: Chips decoded at a time; default: as many as the devices can need.
        """
        self._for_gpu = any(embedder.device.type == "cuda" for embedder in embedders)
        decoders = decoders or _decoders(for_gpu=self._for_gpu)
        workers = fetchers + decoders
        self.clock = StreamClock()
        self._chips = chips
        self._read = read
        # Chips whose pixels are in memory, or about to be. Beside those in the workers' hands, a batch that
        # each device computes, one that it is given meanwhile, one ready: more would only fill memory.
        slots = workers + 3 * batch_size * len(embedders)
        self._slots = threading.Semaphore(slots)
        # Chips begun whose outcome nobody has taken.
        self._untaken = threading.Semaphore(slots + _outcomes_ahead(embedders, level, batch_size))
        # Decoding is bound by cores; more at a time would only hold more pixels. In threads of its own: the C
        # library keeps what a thread has freed for that thread, and 18 that decode in turns held 340 MB more.
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._room = WaitingRoom()
        self._outcomes: dict[str, SimpleQueue[Future[Outcome]]] = {tile: SimpleQueue() for tile in chips}
        self._order = list(chips)
        self._taken = 0  # tiles before this one in the order are finished with
        self._lock = threading.Lock()  # guards the three below, and that futures are queued in order
        self._jobs = ((tile, chip) for tile, tile_chips in chips.items() for chip in tile_chips)
        self._given_up: set[str] = set()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._fetch, name=f"fetch-{index}", daemon=True)
            for index in range(workers)
        ]
        loops = [
            DeviceLoop(embedder, self._room, level=level, batch_size=batch_size, clock=self.clock)
            for embedder in embedders
        ]
        self._threads += [
            threading.Thread(target=loop.run, name=f"encode-{index}", daemon=True)
            for index, loop in enumerate(loops)
        ]

    def __enter__(self) -> Self:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:  # the system gave no more threads
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def results(self, tile: str) -> Generator[Outcome]:
        """What became of each chip of a tile, in the order given; waits for each.

        Tiles must be asked for in the order in which they were given. Whoever stops early, or asks for a
        later tile, gives up the rest: what is under way for it is dropped.

        Raises:
            StorageError: If a chip could not be fetched; the rest of the tile is given up.
            EncodingFailed: If the network could not embed a chip.
            ValueError: If it is none of the tiles, or was passed already.
        """
        left = self._order[self._taken :]
        if tile not in left:
            raise ValueError(
                f"tile {tile} was asked for, expected one of those that are left, in their order:"
                f" {', '.join(left[:5]) or 'none'}{', …' if len(left) > 5 else ''}"
            )
        place = self._taken + left.index(tile)
        # The one asked for last is among these: a generator that was never begun has given up nothing itself.
        for earlier in self._order[max(0, self._taken - 1) : place]:
            self._give_up(earlier)
        self._taken = place + 1
        return self._take(tile)

    def _take(self, tile: str) -> Generator[Outcome]:
        try:
            for _ in self._chips[tile]:
                outcome = self._outcomes[tile].get()
                try:
                    yield outcome.result()
                finally:
                    self._untaken.release()
        finally:
            self._give_up(tile)

    def _give_up(self, tile: str) -> None:
        """Start no more chips of a tile, and take the outcomes of those under way for nothing."""
        with self._lock:
            self._given_up.add(tile)
        for chip in self._room.discard(tile):
            chip.outcome.cancel()
        while not self._outcomes[tile].empty():
            self._outcomes[tile].get()
            self._untaken.release()

    def _close(self) -> None:
        with self._lock:
            self._closed = True
        self._room.close()
        for permits in (self._untaken, self._slots):
            permits.release(len(self._threads))  # wakes every fetcher
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()
        self._decoders.shutdown()

    # The fetchers' threads.

    def _fetch(self) -> None:
        for tile, source, outcome in self._take_jobs():
            self._room.arrive(self._prepare(tile, source, outcome))

    def _take_jobs(self) -> Iterator[tuple[str, StoredObject, Future[Outcome]]]:
        """One chip after another, each with a slot until its outcome is known."""
        while True:
            self._untaken.acquire()
            self._slots.acquire()
            with self._lock:
                job = None if self._closed else self._next_wanted()
                if job is None:
                    self._slots.release()  # the next fetcher finds the end, too
                    self._untaken.release()
                    self._room.all_announced()
                    return
                outcome: Future[Outcome] = Future()
                outcome.add_done_callback(lambda _: self._slots.release())
                self._outcomes[job[0]].put(outcome)
                self._room.announce()
            yield *job, outcome

    def _next_wanted(self) -> tuple[str, StoredObject] | None:
        return next((job for job in self._jobs if job[0] not in self._given_up), None)

    def _prepare(self, tile: str, source: StoredObject, outcome: Future[Outcome]) -> ReadyChip | None:
        """A chip fetched and decoded; None if the outcome is known already, or nobody waits for it."""
        try:
            if source.size > MAX_CHIP_BYTES:
                raise ChipRejected(
                    "layout",
                    f"has {source.size:,} bytes, expected at most {MAX_CHIP_BYTES:,}: it is not fetched",
                )
            data = b"" if tile in self._given_up else self._read(source)
            return self._decoders.submit(self._decode, data, tile, source, outcome).result()
        except ChipRejected as rejection:
            outcome.set_result(Skipped(source, rejection.reason, str(rejection)))
        except BaseException as error:  # whatever it was, the one who waits must hear of it
            outcome.set_exception(error)
        return None

    def _decode(
        self, data: bytes, tile: str, source: StoredObject, outcome: Future[Outcome]
    ) -> ReadyChip | None:
        if tile in self._given_up:
            outcome.cancel()
            return None
        chip = read_chip(data, source.url)
        return ReadyChip(
            tile=tile,
            source=source,
            pixels=_to_tensor(chip.pixels, for_gpu=self._for_gpu),
            lonlat=chip.lonlat,
            date=chip.date,
            footprint=chip.footprint,
            thumbnail=chip_thumbnail(chip.pixels),
            outcome=outcome,
        )


def _decoders(*, for_gpu: bool) -> int:
    """Chips to decode at a time: one on each core that this process may use.

    For a CPU at most a few: one core decodes more chips than all of them embed.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return cores if for_gpu else min(cores, DECODERS_FOR_A_CPU)


def _outcomes_ahead(embedders: Sequence[Embedder], level: Level, batch_size: int) -> int:
    """Outcomes that may wait for somebody to take them, beside those of the chips in memory."""
    if not embedders:
        return 0
    vector_bytes = 4 * math.prod(embedding_shape(level, embedders[0].dimensions.dim))
    return min(BATCHES_AHEAD * batch_size * len(embedders), OUTCOMES_AHEAD_BYTES // vector_bytes)


def _to_tensor(pixels: NDArray[np.float32], *, for_gpu: bool) -> Tensor:
    """Pixels for a device.

    A file's bands may lie pixel by pixel. For the CPU they are taken apart here, by as many threads as
    decode; for a GPU they are left as they lie, because it does that in no time (see `DeviceLoop`).
    """
    if not for_gpu:
        return torch.from_numpy(np.ascontiguousarray(pixels))
    # Copies from pinned memory run beside the device's work.
    tensor = torch.empty_like(torch.from_numpy(pixels), pin_memory=True)
    np.copyto(tensor.numpy(), pixels)
    return tensor
