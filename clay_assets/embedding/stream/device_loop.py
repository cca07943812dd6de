"""One device's thread: takes batches, encodes them, hands out what became of each chip.

Belongs here: batches and what can go wrong with them on a device. Does not belong here: how the network works
(`clay_model`), or who waits for the outcomes (`chip_stream.py`).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clay_assets.embedding.stream.ready_queue import ReadyChip, ReadyQueue
from clay_assets.results.outcomes import Embedded, Skipped
from clay_model import Embedder, Level

log = logging.getLogger(__name__)

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""What errors say that are not of the class meant for it: pinned memory's, the CPU allocator's, cuBLAS's."""


FIRST_CHIPS = 4
"""Chips of a run that may all give vectors that are not finite before the checkpoint is to blame."""

UNFINITE = (
    "the network gave numbers that are not finite for pixels that are: extreme ones, or the checkpoint's"
    " weights are"
    " damaged"
)


class EncodingFailed(RuntimeError):
    """The network could not embed a chip, whatever the chip: no other tile would fare better."""

    systemic = True


@dataclass
class StreamClock:
    """Where the devices' threads spent their time, in seconds, all threads together.

    Attributes:
        encoding: Spent encoding.
        waiting: Spent waiting for a batch after the first one.
        batches: Batches encoded.
        finite: Whether a vector so far was finite.
    """

    encoding: float = 0.0
    waiting: float = 0.0
    batches: int = 0
    finite: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, encoding: float, waiting: float, batches: int) -> None:
        """Count time; safe from any thread. Before the first batch there was nothing to do but wait."""
        with self.lock:
            self.encoding += encoding
            self.waiting += waiting if self.batches else 0.0
            self.batches += batches


@dataclass(eq=False)
class _Launched:
    """A batch given to the device, which may still be computing; its vectors are there after `wait`."""

    chips: Sequence[ReadyChip]
    vectors: Tensor
    wait: Callable[[], None]


class DeviceLoop:
    """Encodes batch after batch on one device until the queue has no more."""

    def __init__(
        self,
        embedder: Embedder,
        ready: ReadyQueue,
        *,
        level: Level,
        batch_size: int,
        clock: StreamClock,
        ahead: int | None = None,
    ) -> None:
        """Describe the loop; `run` is for a thread of its own.

        Args:
            embedder: The network on this device.
            ready: Where the chips come from.
            level: How much of a chip one vector describes.
            batch_size: Windows per forward pass, as long as memory suffices.
            clock: Gets the time spent.
            ahead: Batches given to the device while it still computes others. Default: one on a GPU, so that
                it never waits for us; none on a CPU, which has computed when `encode` returns.
        """
        self._embedder = embedder
        self._ready = ready
        self._level: Level = level
        self._size = batch_size
        self._clock = clock
        self._todo: list[ReadyChip] = []  # of the current batch, not launched yet
        self._unfinite = 0  # vectors of this device that were not finite
        self._launched: deque[_Launched] = deque()
        on_gpu = embedder.device.type == "cuda"
        self._ahead = (1 if on_gpu else 0) if ahead is None else ahead
        # Pixels have a stream of their own: in that of the products they would wait until those are done.
        self._copies = torch.cuda.Stream(embedder.device) if on_gpu else None

    def run(self) -> None:
        """Encode until there is nothing more.

        An error that no step expects, such as a native library's panic, ends the whole stream: each chip that
        waits for a device gets it as its outcome, because no other thread checks how this one ended.
        """
        try:
            while self._step():
                pass
        except BaseException as error:
            log.exception("the thread of %s ended", self._embedder.device)
            message = f"the thread of {self._embedder.device} ended: {type(error).__name__}: {error}"
            held = [*self._todo, *(chip for launched in self._launched for chip in launched.chips)]
            self._fail([chip for chip in held if not chip.outcome.done()], message)
            self._ready.fail(EncodingFailed(message))

    def _step(self) -> bool:
        """One batch; False at the end. A function of its own, so that no pixels are held while waiting."""
        started = time.perf_counter()
        batch = self._ready.take(self._size, wait=not self._launched)
        waited = time.perf_counter() - started
        if not batch and not self._launched:
            return False
        self._launch(batch)
        self._finish_all_but(self._ahead if batch else 0)
        self._clock.add(
            encoding=time.perf_counter() - started - waited, waiting=waited, batches=1 if batch else 0
        )
        return True

    def _launch(self, batch: Sequence[ReadyChip]) -> None:
        """Start a batch, in smaller parts where the device has too little memory."""
        todo = self._todo = list(batch)
        while todo:
            part = _first_of(todo, self._size)
            try:
                self._launched.append(_Launched(part, *_to_host(self._encode(part))))
            except Exception as error:  # those who wait for these chips must hear of it
                if _is_out_of_memory(error):
                    if self._make_room(sum(len(chip.windows) for chip in part)):
                        continue
                    self._fail(part, f"{self._embedder.device} has no memory for a single window", error)
                else:
                    self._fail(part, f"{self._embedder.device} could not encode a batch", error)
            del todo[: len(part)]
            self._finish_all_but(self._ahead)

    def _make_room(self, size: int) -> bool:
        """After so many windows found too little memory: whether it is worth another try."""
        others = len(self._launched)
        self._finish_all_but(0)  # what is under way holds memory, too
        if size > 1:
            self._size = min(self._size, size) // 2 or 1
            log.warning(
                "out of memory on %s: on with batches of %d windows", self._embedder.device, self._size
            )
        return others > 0 or size > 1

    def _encode(self, part: Sequence[ReadyChip]) -> Tensor:
        """Vectors of the windows of some chips, (windows, …)."""
        device = self._embedder.device
        count = sum(len(chip.windows) for chip in part)
        with torch.cuda.stream(self._copies) if self._copies is not None else nullcontext():
            pixels = torch.empty((count, *part[0].pixels.shape[1:]), device=device)
            rows = pixels.split([len(chip.windows) for chip in part])
            for row, chip in zip(rows, part, strict=True):
                # First as they lie, then apart: a copy to a GPU that does both does the latter on the CPU.
                row.copy_(chip.pixels.to(device, non_blocking=True))
        if self._copies is not None:
            products = torch.cuda.current_stream(device)
            products.wait_stream(self._copies)
            pixels.record_stream(products)  # else their memory could be given away while it is still read
        places = [window.lonlat for chip in part for window in chip.windows]
        times = [chip.time or chip.date for chip in part for _ in chip.windows]
        context = self._embedder.context(places, times)
        parts = [tensor.split(self._size) for tensor in (pixels, *context)]  # a chip may have more windows
        vectors = [
            self._embedder.encode(images, where, when, self._level)
            for images, where, when in zip(*parts, strict=True)
        ]
        return torch.cat(vectors) if len(vectors) > 1 else vectors[0]

    def _finish_all_but(self, count: int) -> None:
        while len(self._launched) > count:
            self._finish(self._launched[0])
            self._launched.popleft()

    def _finish(self, launched: _Launched) -> None:
        """Hand out a batch's outcomes; waits for the device."""
        try:
            launched.wait()
            vectors = launched.vectors.numpy()
            ends = np.cumsum([len(chip.windows) for chip in launched.chips])[:-1]
            # Copies, so that vectors that wait to be written do not keep their whole batch.
            outcomes = [
                Embedded(
                    chip.source,
                    chip.date,
                    tuple(window.footprint for window in chip.windows),
                    rows.copy(),
                    chip.thumbnails,
                    chip.nodata,
                )
                for chip, rows in zip(launched.chips, np.split(vectors, ends), strict=True)
            ]
        except Exception as error:  # what a GPU could not do is often said only when its result is asked for
            self._fail(launched.chips, f"{self._embedder.device} could not encode a batch", error)
            return
        for chip, outcome in zip(launched.chips, outcomes, strict=True):
            if np.isfinite(outcome.vectors).all():
                self._clock.finite = True
                chip.outcome.set_result(outcome)
            elif self._clock.finite or self._unfinite < FIRST_CHIPS:
                self._unfinite += 1
                chip.outcome.set_result(Skipped(chip.source, "vector", UNFINITE))
            else:
                self._fail([chip], f"the first {FIRST_CHIPS + 1} chips of the run: {UNFINITE}")

    @staticmethod
    def _fail(chips: Sequence[ReadyChip], message: str, cause: Exception | None = None) -> None:
        reason = f": {type(cause).__name__}: {str(cause)[:300]}" if cause is not None else ""
        for chip in chips:
            error = EncodingFailed(message + reason)
            error.__cause__ = cause
            chip.outcome.set_exception(error)


def _first_of(chips: Sequence[ReadyChip], windows: int) -> list[ReadyChip]:
    """The first chips that have so many windows together, at most; one in any case."""
    ends = np.cumsum([len(chip.windows) for chip in chips])
    return list(chips[: max(1, int(np.searchsorted(ends, windows, side="right")))])


def _to_host(vectors: Tensor) -> tuple[Tensor, Callable[[], None]]:
    """Start to bring a batch's vectors to the host.

    Started now and not when they are asked for: by then the next batch is in the GPU's queue, and the copy
    would come after it.

    Returns:
        Vectors in the host's memory, and a function that returns once they are there.
    """
    if vectors.device.type != "cuda":
        return vectors, lambda: None
    host = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
    host.copy_(vectors, non_blocking=True)
    arrived = torch.cuda.Event(blocking=True)  # else waiting for it would keep a core busy
    arrived.record(torch.cuda.current_stream(vectors.device))
    return host, arrived.synchronize


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in OUT_OF_MEMORY
    )
