"""`ChipStream`: the chips of many tiles through one pipeline, outcomes in the order of the chips.

Belongs here: the bound on memory, the fetchers' threads, and stopping early. Does not belong here: who gets
which batch (`ready_queue.py`), how it is encoded (`device_loop.py`).
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clay_assets.chips import MAX_CHIP_BYTES, MAX_NODATA, ChipRejected, read_chip
from clay_assets.embedding.stream.device_loop import DeviceLoop, StreamClock
from clay_assets.embedding.stream.ready_queue import ReadyChip, ReadyQueue
from clay_assets.results.outcomes import Outcome, Skipped
from clay_assets.results.picture import chip_thumbnail
from clay_assets.storage import AccessDenied, StoredObject
from clay_model import Embedder, Level

FETCHERS = 16
"""Chips fetched while as many as there are cores are decoded: 16 x 9 MB in 100 ms each are 1.4 GB/s."""

DECODERS_FOR_A_CPU = 4
"""Chips decoded at a time where a CPU embeds them."""

BATCHES_AHEAD = 16
"""Batches that may be embedded before somebody takes their outcomes, as long as those are small: so the
devices go on while a tile is written. Lost if the process is killed meanwhile."""

GIVE_UP_S = 5.0
"""Seconds for which a run that ends by an error or an interrupt waits for transfers in progress. Their chips
are lost to it either way, and a silent network would hold it for minutes."""

OUTCOMES_AHEAD_BYTES = 256 * 2**20
"""Of vectors of such batches."""


class _Tile:
    """A tile in the stream: the queue of its chips' outcomes, in their order."""

    def __init__(self, name: str, chips: int) -> None:
        self.name = name
        self.chips = chips
        self.outcomes: SimpleQueue[Future[Outcome]] = SimpleQueue()
        self.abandoned = False

    def abandons(self, chip: ReadyChip) -> bool:
        """Whether a chip belongs to this tile."""
        return chip.tile == self.name


class ChipStream:
    """Embeds the chips of many tiles, in order, through one pipeline.

    `add` tiles, take their `results` in the same order, `finish` after the last. Use as a context manager;
    leaving it stops every thread it started, also in the middle: it then waits for the
    batches in progress, for the transfers no longer than `GIVE_UP_S`, and starts no others.

    Attributes:
        clock: Where the devices' time went.
        capacity: Chips that the stream works on beyond those whose outcomes were taken: with this many added
            ahead, the devices do not wait.
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
        decoders: int | None = None,
    ) -> None:
        """Describe the work; nothing starts before the context is entered.

        Args:
            read: Fetches a chip's bytes; called from many threads.
            embedders: At least one; each gets a thread, and the next batch when it is free.
            level: How much of a chip one vector describes.
            batch_size: Chips per forward pass.
            max_nodata: Highest share of a chip's pixels without data, 0 to 1.
            fetchers: Chips fetched while others are decoded.
            decoders: Chips decoded at a time; default: as many as the devices can need.
        """
        self._for_gpu = any(embedder.device.type == "cuda" for embedder in embedders)
        decoders = decoders or _decoders(for_gpu=self._for_gpu)
        workers = fetchers + decoders
        self.clock = StreamClock()
        self._read = read
        self._max_nodata = max_nodata
        self._spec = embedders[0].spec
        # Chips whose pixels are in memory, or about to be. Beside those in the workers' hands, a batch that
        # each device computes, one that it is given meanwhile, one ready: more would only fill memory.
        slots = workers + 3 * batch_size * len(embedders)
        self._slots = threading.Semaphore(slots)
        # Chips started whose outcome was not taken yet.
        self.capacity = slots + _outcomes_ahead(embedders, level, batch_size)
        self._untaken = threading.Semaphore(self.capacity)
        # Decoding is bound by cores; more at a time would only hold more pixels. In threads of its own: the C
        # library keeps what a thread has freed for that thread, and 18 that decode in turns held 340 MB more.
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._ready = ReadyQueue()
        self._changed = threading.Condition()  # guards those below, and that futures are queued in order
        self._tiles: dict[str, _Tile] = {}  # added, results not taken to the end
        self._jobs: deque[tuple[_Tile, StoredObject]] = deque()
        self._finished = False  # no more tiles will be added
        self._closed = False
        self._threads = [
            threading.Thread(target=self._fetch, name=f"fetch-{index}", daemon=True)
            for index in range(workers)
        ]
        loops = [
            DeviceLoop(embedder, self._ready, level=level, batch_size=batch_size, clock=self.clock)
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
        self._close(patience=None if kind is None else GIVE_UP_S)

    def add(self, tile: str, chips: Sequence[StoredObject]) -> None:
        """Queue a tile's chips behind those added before.

        Raises:
            ValueError: If the tile was added before and its results were not taken, or after `finish`.
        """
        with self._changed:
            if tile in self._tiles or self._finished:
                raise ValueError(f"tile {tile} was added twice, or after finish()")
            added = _Tile(tile, len(chips))
            self._tiles[tile] = added
            self._jobs.extend((added, chip) for chip in chips)
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that no more tiles will be added: once all are done, the threads end."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def results(self, tile: str) -> Generator[Outcome]:
        """The outcome of each chip of a tile, in the order given; waits for each.

        Tiles must be taken in the order in which they were added. Stopping early, or asking for a later
        tile, abandons the rest: chips in progress are dropped.

        Raises:
            StorageError: If a chip could not be fetched; the rest of the tile is abandoned.
            EncodingFailed: If the network could not embed a chip.
            ValueError: If the tile was not added, or its results were taken already.
        """
        if tile not in self._tiles:
            names = list(self._tiles)
            raise ValueError(
                f"got tile {tile}, expected one of the remaining, in their order:"
                f" {', '.join(names[:5]) or 'none'}{', …' if len(names) > 5 else ''}"
            )
        for earlier in list(self._tiles.values()):
            if earlier.name == tile:
                return self._take(earlier)
            self._abandon(earlier)
        raise AssertionError  # unreachable: the tile is among them

    def _take(self, tile: "_Tile") -> Generator[Outcome]:
        try:
            for _ in range(tile.chips):
                outcome = tile.outcomes.get()
                try:
                    yield outcome.result()
                finally:
                    self._untaken.release()
        finally:
            self._abandon(tile)

    def _abandon(self, tile: "_Tile") -> None:
        """Start no more chips of a tile and discard its results in progress."""
        with self._changed:
            tile.abandoned = True
            if self._tiles.get(tile.name) is tile:
                del self._tiles[tile.name]
        for chip in self._ready.discard(tile.abandons):
            chip.outcome.cancel()
        while not tile.outcomes.empty():
            tile.outcomes.get()
            self._untaken.release()

    def _close(self, patience: float | None = None) -> None:
        """Stop the threads; those that wait for the network longer than `patience` seconds are left to it."""
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
        self._decoders.shutdown()

    # The fetchers' threads.

    def _fetch(self) -> None:
        for tile, source, outcome in self._take_jobs():
            self._ready.arrive(self._prepare(tile, source, outcome))

    def _take_jobs(self) -> "Iterator[tuple[_Tile, StoredObject, Future[Outcome]]]":
        """One chip after another, each with a slot until its outcome is known."""
        while True:
            self._untaken.acquire()
            self._slots.acquire()
            with self._changed:
                job = self._next_job()
                if job is None:
                    self._slots.release()  # the next fetcher finds the end, too
                    self._untaken.release()
                    self._ready.all_announced()
                    return
                outcome: Future[Outcome] = Future()
                outcome.add_done_callback(lambda _: self._slots.release())
                job[0].outcomes.put(outcome)
                self._ready.announce()
            yield *job, outcome

    def _next_job(self) -> "tuple[_Tile, StoredObject] | None":
        """The next chip of a tile that was not abandoned; waits for one. None at the end."""
        while not self._closed:
            while self._jobs:
                job = self._jobs.popleft()
                if not job[0].abandoned:
                    return job
            if self._finished:
                return None
            self._changed.wait()
        return None

    def _prepare(self, tile: "_Tile", source: StoredObject, outcome: Future[Outcome]) -> ReadyChip | None:
        """A chip fetched and decoded; None if its outcome is known already, or its tile was abandoned."""
        try:
            if source.size > MAX_CHIP_BYTES:
                raise ChipRejected(
                    "layout",
                    f"has {source.size:,} bytes, expected at most {MAX_CHIP_BYTES:,}: it is not fetched",
                )
            data = b"" if tile.abandoned else self._read(source)
            return self._decoders.submit(self._decode, data, tile, source, outcome).result()
        except ChipRejected as rejection:
            outcome.set_result(Skipped(source, rejection.reason, str(rejection)))
        except AccessDenied as denied:
            if denied.systemic:  # of the store
                outcome.set_exception(denied)
            else:
                outcome.set_result(Skipped(source, "unreadable", str(denied)))
        except BaseException as error:  # the consumer waits for this outcome: every error must reach it
            outcome.set_exception(error)
        return None

    def _decode(
        self, data: bytes, tile: "_Tile", source: StoredObject, outcome: Future[Outcome]
    ) -> ReadyChip | None:
        if tile.abandoned:
            outcome.cancel()
            return None
        chip = read_chip(data, source.url, spec=self._spec, tile=tile.name, max_nodata=self._max_nodata)
        windows = _windows(chip.pixels, self._spec.window_size)
        return ReadyChip(
            tile=tile.name,
            source=source,
            pixels=_to_tensor(windows, for_gpu=self._for_gpu),
            windows=chip.windows,
            date=chip.date,
            time=chip.time,
            thumbnails=tuple(map(chip_thumbnail, windows)),
            nodata=chip.nodata,
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
    """Outcomes that may wait for the consumer, beside those of the chips in memory."""
    first = embedders[0]
    vector_bytes = 4 * math.prod(first.spec.embedding_shape(level, first.dimensions.dim))
    return min(BATCHES_AHEAD * batch_size * len(embedders), OUTCOMES_AHEAD_BYTES // vector_bytes)


def _windows(pixels: NDArray[Any], size: int) -> NDArray[Any]:
    """A chip's windows, (W, bands, size, size), row by row; a view where the chip is one window."""
    bands, side = len(pixels), pixels.shape[1] // size
    parts = pixels.reshape(bands, side, size, side, size).transpose(1, 3, 0, 2, 4)
    return parts.reshape(-1, bands, size, size) if side > 1 else parts[0]


def _to_tensor(pixels: NDArray[Any], *, for_gpu: bool) -> Tensor:
    """Pixels (W, bands, size, size) for a device.

    A file's bands may lie pixel by pixel. For the CPU they are taken apart here, by as many threads as
    decode; for a GPU they are left as they lie, because it does that in no time (see `DeviceLoop`).
    """
    if not for_gpu:
        return torch.from_numpy(np.ascontiguousarray(pixels))
    # Copies from pinned memory run beside the device's work.
    tensor = torch.empty_like(torch.from_numpy(pixels), pin_memory=True)
    np.copyto(tensor.numpy(), pixels)
    return tensor
