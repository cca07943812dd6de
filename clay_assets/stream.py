"""Fetch → decode → batch → encode, all at once, in bounded memory.

One `ChipStream` serves a whole run: it crosses from tile to tile without a pause, so the encoder does not
wait while a tile is written or the next one begins. Nothing here knows of Dagster, of files on disk or of
how the network works.

    feeder ──► fetchers (I/O, then decoding) ──► ready chips ──► one encoder thread a device ──► outcomes
       ▲                                                                                           │
       └──────────── a slot for each chip between the two ends: the bound on memory ───────────────┘

Outcomes come back in the order of the chips, so files are the same whatever the network did.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from clay_assets.chips import Chip, ChipRejected, read_chip
from clay_assets.outcomes import Embedded, Outcome, Skipped
from clay_assets.preview import chip_thumbnail
from clay_assets.storage import StoredObject
from clay_model import Embedder, Level
from clay_model.encodings import encode_dates, encode_places

log = logging.getLogger(__name__)

FETCHERS = 16
"""Chips fetched at a time: 16 x 9 MB in 100 ms each are 1.4 GB/s, above what a host's network gives."""


class EncodingFailed(RuntimeError):
    """The network could not embed a chip, whatever the chip: no other tile would fare better."""

    systemic = True


@dataclass
class StreamClock:
    """Where the encoder threads' time went, in seconds, all threads together.

    Attributes:
        encoding: Spent encoding.
        waiting: Spent waiting for a batch after the first one.
        batches: Batches encoded.
    """

    encoding: float = 0.0
    waiting: float = 0.0
    batches: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, encoding: float = 0.0, waiting: float = 0.0, batches: int = 0) -> None:
        """Count time; safe from any thread."""
        with self.lock:
            self.encoding += encoding
            self.waiting += waiting
            self.batches += batches


@dataclass(eq=False)
class _Ready:
    """A decoded chip on its way to an encoder."""

    source: StoredObject
    chip: Chip
    pixels: Tensor  # the chip's, (13, 512, 512) float32; in pinned memory where a GPU will fetch them
    thumbnail: bytes
    outcome: Future[Outcome]


@dataclass(eq=False)
class _Launched:
    """A batch given to a device, which may still be computing."""

    chips: Sequence[_Ready]
    vectors: Tensor


class ChipStream:
    """Embeds the chips of many tiles, in order, through one pipeline.

    Use as a context manager; leaving it stops every thread it started, also in the middle.
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
    ) -> None:
        """Describe the work; nothing starts before the context is entered.

        Args:
            chips: The chips of each tile, in the order in which tiles and chips are to be done.
            read: Fetches a chip's bytes; called from many threads.
            embedders: At least one; each gets a thread and takes the next batch when it is free.
            level: How much of a chip one vector describes.
            batch_size: Chips per forward pass.
            fetchers: Chips fetched at a time.
        """
        self.clock = StreamClock()
        self._chips = chips
        self._read = read
        self._embedders = embedders
        self._level: Level = level
        self._batch_size = batch_size
        self._pinned = any(embedder.device.type == "cuda" for embedder in embedders)
        # Beside those being fetched, a batch with each encoder, one ready for it, and one of outcomes
        # not yet taken: fewer would let an encoder wait, more would only fill memory.
        self._slots = threading.Semaphore(fetchers + 3 * batch_size * len(embedders))
        # Decoding is bound by cores; more at a time would only hold more pixels.
        self._decoders = threading.Semaphore(os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(fetchers, thread_name_prefix="fetch")
        self._outcomes: dict[str, SimpleQueue[Future[Outcome]]] = {tile: SimpleQueue() for tile in chips}
        self._abandoned: set[str] = set()
        self._abandoning = threading.Lock()
        self._work = threading.Condition()  # guards the four below
        self._ready: deque[_Ready] = deque()
        self._preparing = 0
        self._fed = False
        self._closed = False
        self._threads = [threading.Thread(target=self._feed, name="feeder", daemon=True)]
        self._threads += [
            threading.Thread(target=self._encode, args=(embedder,), name=f"encoder-{index}", daemon=True)
            for index, embedder in enumerate(embedders)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._work:
            self._closed = True
            self._work.notify_all()
        self._slots.release()  # wakes the feeder
        self._pool.shutdown(wait=False, cancel_futures=True)
        for thread in self._threads:
            thread.join()
        self._pool.shutdown(wait=True)

    def results(self, tile: str) -> Generator[Outcome]:
        """What became of each chip of a tile, in the order given; waits for each.

        Tiles must be taken in the order in which they were given. A consumer that stops early gives up
        the rest of its tile: what is under way for it is dropped.

        Raises:
            StorageError: If a chip could not be fetched; the rest of the tile is given up.
            EncodingFailed: If the network could not embed a chip.
        """
        taken = 0
        try:
            for taken, _ in enumerate(self._chips[tile], start=1):  # noqa: B007 - read in `finally`
                outcome = self._outcomes[tile].get()
                try:
                    yield outcome.result()
                finally:
                    self._slots.release()
        finally:
            if taken < len(self._chips[tile]) or not self._outcomes[tile].empty():
                self._abandon(tile)

    def _abandon(self, tile: str) -> None:
        """Start no more chips of a tile, and free the slots of those that nobody will take."""
        with self._abandoning:
            self._abandoned.add(tile)
            while not self._outcomes[tile].empty():
                self._outcomes[tile].get()
                self._slots.release()

    # The feeder's thread.

    def _feed(self) -> None:
        for tile, chips in self._chips.items():
            for chip in chips:
                self._slots.acquire()
                if self._closed:
                    return
                outcome: Future[Outcome] = Future()
                with self._abandoning:
                    if tile in self._abandoned:
                        self._slots.release()
                        break
                    self._outcomes[tile].put(outcome)
                with self._work:
                    self._preparing += 1
                try:
                    self._pool.submit(self._prepare, tile, chip, outcome)
                except RuntimeError:  # the pool was shut down between the check above and here
                    return
        with self._work:
            self._fed = True
            self._work.notify_all()

    # The fetchers' threads.

    def _prepare(self, tile: str, source: StoredObject, outcome: Future[Outcome]) -> None:
        ready: _Ready | None = None
        try:
            if tile not in self._abandoned:
                data = self._read(source)
                with self._decoders:
                    ready = self._decode(data, source, outcome)
        except ChipRejected as rejection:
            outcome.set_result(Skipped(source, rejection.reason, str(rejection)))
        except BaseException as error:  # whatever it was, the one who waits must hear of it
            outcome.set_exception(error)
        with self._work:
            self._preparing -= 1
            if ready is not None:
                self._ready.append(ready)
            self._work.notify_all()

    def _decode(self, data: bytes, source: StoredObject, outcome: Future[Outcome]) -> _Ready:
        chip = read_chip(data, source.url)
        # The bands may come pixel by pixel; they are taken apart here, where threads are many.
        pixels = torch.from_numpy(np.ascontiguousarray(chip.pixels))
        if self._pinned:  # copies to the device then run beside its work instead of before it
            pixels = pixels.pin_memory()
        return _Ready(source, chip, pixels, chip_thumbnail(chip.pixels), outcome)

    # The encoders' threads.

    def _next_batch(self, size: int, *, wait: bool) -> list[_Ready]:
        """A full batch, or what there is once no more is on its way; [] at the end or instead of a wait."""
        with self._work:
            while not self._closed:
                if len(self._ready) >= size or (self._ready and not self._preparing):
                    return [self._ready.popleft() for _ in range(min(size, len(self._ready)))]
                if not wait or (self._fed and not self._preparing and not self._ready):
                    return []
                self._work.wait()
        return []

    def _encode(self, embedder: Embedder) -> None:
        size = self._batch_size
        launched: deque[_Launched] = deque()
        # A GPU gets its next batch while it computes this one; a CPU has computed when `encode` returns.
        depth = 1 if embedder.device.type == "cuda" else 0
        while True:
            started = time.perf_counter()
            batch = self._next_batch(size, wait=not launched)
            waited = time.perf_counter() - started
            if not batch and not launched:
                return
            if batch:
                size = self._launch(embedder, batch, size, launched)
            while len(launched) > (depth if batch else 0):
                self._finish(launched.popleft())
            self.clock.add(
                encoding=time.perf_counter() - started - waited,
                waiting=waited
                if self.clock.batches
                else 0.0,  # before the first batch there is nothing to do
                batches=bool(batch),
            )

    def _launch(
        self, embedder: Embedder, batch: Sequence[_Ready], size: int, launched: deque[_Launched]
    ) -> int:
        """Start a batch, in halves where the device has too little memory; returns the size to go on with."""
        done = 0
        while done < len(batch):
            part = batch[done : done + size]
            try:
                launched.append(_Launched(part, self._embed(embedder, part)))
            except torch.OutOfMemoryError as error:
                while launched:  # their results hold memory too
                    self._finish(launched.popleft())
                if size == 1:
                    message = f"{embedder.device} has no memory for a single chip: {str(error)[:300]}"
                    self._fail(part, EncodingFailed(message))
                else:
                    size = max(1, size // 2)
                    log.warning("out of memory on %s: on with batches of %d chips", embedder.device, size)
                    continue
            except Exception as error:  # the one who waits for these chips decides
                self._fail(part, error)
            done += len(part)
        return size

    def _embed(self, embedder: Embedder, part: Sequence[_Ready]) -> Tensor:
        pixels = torch.empty((len(part), *part[0].pixels.shape), device=embedder.device)
        for row, item in zip(pixels, part, strict=True):
            row.copy_(item.pixels, non_blocking=True)
        places = encode_places([item.chip.lonlat for item in part])
        dates = encode_dates([item.chip.date for item in part])
        return embedder.encode(pixels, places, dates, self._level)

    def _finish(self, launched: _Launched) -> None:
        """Hand out a batch's outcomes; waits for the device."""
        try:
            vectors = launched.vectors.cpu().numpy()
        except Exception as error:  # what a GPU could not do is often said only when its result is asked for
            self._fail(launched.chips, error)
            return
        for item, vector in zip(launched.chips, vectors, strict=True):
            if np.isfinite(vector).all():
                # A copy, so that a vector that waits to be written does not keep its whole batch.
                item.outcome.set_result(
                    Embedded(item.source, item.chip.date, item.chip.footprint, vector.copy(), item.thumbnail)
                )
            else:
                message = (
                    f"the network gave numbers that are not finite for {item.source.url}, whose pixels are:"
                    " the checkpoint's weights are damaged, or not those of Clay v0"
                )
                self._fail([item], EncodingFailed(message))

    @staticmethod
    def _fail(chips: Sequence[_Ready], error: BaseException) -> None:
        for item in chips:
            item.outcome.set_exception(error)
