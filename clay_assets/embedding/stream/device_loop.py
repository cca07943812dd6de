"""One device's thread: copies to it and back, encoding, errors and lack of memory, outcomes of chips."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clay_assets.embedding.stream.ready_chips import ReadyChip, ReadyQueue
from clay_assets.results.outcomes import Skipped
from clay_model import Embedder, Level

log = logging.getLogger(__name__)

# If a run begins with more chips than this that all have non-finite vectors, the checkpoint is damaged.
FIRST_CHIPS = 4
NONFINITE = (
    "the network gave numbers that are not finite for pixels that are: the pixels are extreme, or the"
    " checkpoint's weights are damaged"
)


class EncodingFailed(RuntimeError):
    """The network could not embed a chip for a reason that affects every chip."""

    systemic = True


@dataclass
class StreamClock:
    """How the devices' threads spent their time, all threads together."""

    encoding: float = 0.0  # seconds
    waiting: float = 0.0  # seconds of waiting for a batch after the first one
    batches: int = 0
    finite: bool = False  # whether a vector so far was finite
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class LaunchedBatch(NamedTuple):
    """A batch that the device may still be computing."""

    chips: Sequence[ReadyChip]
    vectors: Tensor  # in the host's memory; valid after `wait`
    wait: Callable[[], None]


class DeviceLoop:
    """Encodes batch after batch on one device until the queue has no more. `run` needs its own thread."""

    def __init__(
        self, embedder: Embedder, ready: ReadyQueue, *, level: Level, batch_size: int, clock: StreamClock
    ) -> None:
        on_gpu = embedder.device.type == "cuda"
        # Batches given to the device while it still computes others: one on a GPU, so that it does not wait
        # for the host; none on a CPU, where `encode` returns when it has computed.
        self.ahead = 1 if on_gpu else 0
        # Pixels have a stream of their own: in the stream of the products they would wait for those.
        self._copies = torch.cuda.Stream(embedder.device) if on_gpu else None
        self._embedder = embedder
        self._device = embedder.device
        self._ready = ready
        self._level: Level = level
        self._size = batch_size  # windows per forward pass, as long as memory suffices
        self._clock = clock
        self._todo: list[ReadyChip] = []  # of the current batch, not launched yet
        self._launched: deque[LaunchedBatch] = deque()
        self._nonfinite = 0  # chips of this device whose vectors were not finite

    def run(self) -> None:
        """Encode until the queue ends.

        An unexpected error, such as a native library's panic, ends the whole stream: it becomes the outcome
        of each chip that waits for a device, because no other thread checks how this one ended.
        """
        try:
            while self._step():
                pass
        except BaseException as error:
            log.exception("the thread of %s ended", self._device)
            message = f"the thread of {self._device} ended: {type(error).__name__}: {error}"
            held = [*self._todo, *(chip for launched in self._launched for chip in launched.chips)]
            _fail([chip for chip in held if not chip.outcome.done()], message)
            self._ready.fail(EncodingFailed(message))

    def _step(self) -> bool:
        """Encode one batch; return False at the end. Separate, so that no pixels are held while waiting."""
        started = time.perf_counter()
        batch = self._ready.take(self._size, wait=not self._launched)
        waited = time.perf_counter() - started
        if not batch and not self._launched:
            return False
        self._launch(batch)
        self._finish_all_but(self.ahead if batch else 0)
        with self._clock.lock:  # waiting for the first batch is unavoidable and not counted
            self._clock.encoding += time.perf_counter() - started - waited
            self._clock.waiting += waited if self._clock.batches else 0.0
            self._clock.batches += bool(batch)
        return True

    def _launch(self, batch: Sequence[ReadyChip]) -> None:
        """Start a batch, in smaller parts if the device has too little memory."""
        todo = self._todo = list(batch)
        while todo:
            # The first chips that together have at most as many windows; at least one chip.
            ends = np.cumsum([len(chip.windows) for chip in todo])
            count = max(1, int(np.searchsorted(ends, self._size, side="right")))
            part = todo[:count]
            try:
                self._launched.append(self._encode(part))
            except Exception as error:  # the consumer waits for these chips
                if not _is_out_of_memory(error):
                    _fail(part, f"{self._device} could not encode a batch", error)
                elif self._make_room(int(ends[count - 1])):
                    continue
                else:
                    _fail(part, f"{self._device} has no memory for a single window", error)
            del todo[:count]
            self._finish_all_but(self.ahead)

    def _encode(self, chips: Sequence[ReadyChip]) -> LaunchedBatch:
        """Start to encode the windows of some chips; a GPU still computes them when this returns."""
        counts = [len(chip.windows) for chip in chips]
        places = [window.lonlat for chip in chips for window in chip.windows]
        times = [chip.time or chip.date for chip in chips for _ in chip.windows]
        inputs = (self._to_device(chips, counts), *self._embedder.context(places, times))
        parts = [
            self._embedder.encode(images, where, when, self._level)
            for images, where, when in zip(*(tensor.split(self._size) for tensor in inputs), strict=True)
        ]
        vectors = torch.cat(parts) if len(parts) > 1 else parts[0]
        if vectors.device.type != "cuda":
            return LaunchedBatch(chips, vectors, lambda: None)
        # The copy to the host starts before the next batch enters the GPU's queue.
        host = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        host.copy_(vectors, non_blocking=True)
        arrived = torch.cuda.Event(blocking=True)  # blocking: else waiting would keep a core busy
        arrived.record(torch.cuda.current_stream(vectors.device))
        return LaunchedBatch(chips, host, arrived.synchronize)

    def _to_device(self, chips: Sequence[ReadyChip], counts: list[int]) -> Tensor:
        """Move pixels (windows, bands, side, side) to the device as float32; `counts`: windows per chip."""
        with torch.cuda.stream(self._copies) if self._copies is not None else nullcontext():
            pixels = torch.empty((sum(counts), *chips[0].pixels.shape[1:]), device=self._device)
            for part, chip in zip(pixels.split(counts), chips, strict=True):
                # Copied interleaved, then separated: one copy that does both separates them on the CPU.
                part.copy_(chip.pixels.to(self._device, non_blocking=True))
        if self._copies is not None:
            products = torch.cuda.current_stream(self._device)
            products.wait_stream(self._copies)
            pixels.record_stream(products)  # else their memory could be reused while it is still read
        return pixels

    def _make_room(self, size: int) -> bool:
        """Free memory and halve the batch after `size` windows ran out of it; return whether to try again."""
        others = len(self._launched)
        self._finish_all_but(0)  # batches in progress hold memory too
        if size > 1:
            self._size = min(self._size, size) // 2 or 1
            message = "out of memory on %s: continuing with batches of %d windows"
            log.warning(message, self._device, self._size)
        return others > 0 or size > 1

    def _finish_all_but(self, count: int) -> None:
        """Wait for all launched batches but the last `count`, and set their chips' outcomes."""
        while len(self._launched) > count:
            chips, vectors, wait = self._launched[0]
            try:
                wait()
                # Copies, so that vectors that wait to be written do not keep the whole batch in memory.
                parts = [part.numpy().copy() for part in vectors.split([len(chip.windows) for chip in chips])]
            except Exception as error:  # a GPU reports many errors only when the result is read
                _fail(chips, f"{self._device} could not encode a batch", error)
            else:
                for chip, part in zip(chips, parts, strict=True):
                    self._set_outcome(chip, part)
            self._launched.popleft()

    def _set_outcome(self, chip: ReadyChip, vectors: NDArray[np.float32]) -> None:
        if np.isfinite(vectors).all():
            self._clock.finite = True
            chip.outcome.set_result(chip.embedded(vectors))
        elif self._clock.finite or self._nonfinite < FIRST_CHIPS:
            self._nonfinite += 1
            chip.outcome.set_result(Skipped(chip.source, "vector", NONFINITE))
        else:
            _fail([chip], f"the first {FIRST_CHIPS + 1} chips of the run: {NONFINITE}")


def _fail(chips: Sequence[ReadyChip], message: str, cause: Exception | None = None) -> None:
    reason = f": {type(cause).__name__}: {str(cause)[:300]}" if cause is not None else ""
    for chip in chips:
        error = EncodingFailed(message + reason)
        error.__cause__ = cause
        chip.outcome.set_exception(error)


def _is_out_of_memory(error: Exception) -> bool:
    # Messages of errors of other classes: of pinned memory, the CPU's allocator, cuBLAS.
    messages = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
    is_such = isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
    return is_such or any(message in str(error) for message in messages)
