"""One device's thread: takes batches, encodes them, sets the outcome of each chip.

Belongs here: errors of a device and lack of memory. Does not belong here: moving a batch to the device and
back (`launcher.py`), the order of the outcomes (`chip_stream.py`).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from clay_assets.embedding.stream.launcher import BatchLauncher, LaunchedBatch, is_out_of_memory
from clay_assets.embedding.stream.ready_queue import ReadyChip, ReadyQueue
from clay_assets.results.outcomes import Embedded, Skipped
from clay_model import Embedder, Level

log = logging.getLogger(__name__)

FIRST_CHIPS = 4
"""If a run begins with more chips than this that all have non-finite vectors, the checkpoint is damaged."""

NONFINITE = (
    "the network gave numbers that are not finite for pixels that are: the pixels are extreme, or the"
    " checkpoint's weights are damaged"
)


class EncodingFailed(RuntimeError):
    """The network could not embed a chip for a reason that affects every chip."""

    systemic = True


@dataclass
class StreamClock:
    """How the devices' threads spent their time, all threads together.

    Attributes:
        encoding: Seconds of encoding.
        waiting: Seconds of waiting for a batch after the first one.
        batches: Batches encoded.
        finite: Whether a vector so far was finite.
    """

    encoding: float = 0.0
    waiting: float = 0.0
    batches: int = 0
    finite: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, encoding: float, waiting: float, batches: int) -> None:
        """Count time; safe from any thread. Waiting for the first batch is unavoidable and not counted."""
        with self.lock:
            self.encoding += encoding
            self.waiting += waiting if self.batches else 0.0
            self.batches += batches


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
        """Set up the loop; `run` needs a thread of its own.

        Args:
            embedder: The network on this device.
            ready: Source of the chips.
            level: How much of a chip one vector describes.
            batch_size: Windows per forward pass, as long as memory suffices.
            clock: Counts the time spent.
            ahead: Batches given to the device while it still computes others. Default: one on a GPU, so that
                it does not wait for the host; none on a CPU, where `encode` returns when it has computed.
        """
        self._embedder = embedder
        self._ready = ready
        self._level: Level = level
        self._size = batch_size
        self._clock = clock
        self._todo: list[ReadyChip] = []  # of the current batch, not launched yet
        self._nonfinite = 0  # chips of this device whose vectors were not finite
        self._launched: deque[LaunchedBatch] = deque()
        self._ahead = (1 if embedder.device.type == "cuda" else 0) if ahead is None else ahead
        self._launcher = BatchLauncher(embedder)

    def run(self) -> None:
        """Encode until the queue ends.

        An unexpected error, such as a native library's panic, ends the whole stream: it becomes the outcome
        of each chip that waits for a device, because no other thread checks how this one ended.
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
        """Encode one batch; return False at the end. Separate, so that no pixels are held while waiting."""
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
        """Start a batch, in smaller parts if the device has too little memory."""
        todo = self._todo = list(batch)
        while todo:
            part = _first_of(todo, self._size)
            try:
                self._launched.append(self._launcher.launch(part, self._level, self._size))
            except Exception as error:  # the consumer waits for these chips
                if is_out_of_memory(error):
                    if self._make_room(sum(len(chip.windows) for chip in part)):
                        continue
                    self._fail(part, f"{self._embedder.device} has no memory for a single window", error)
                else:
                    self._fail(part, f"{self._embedder.device} could not encode a batch", error)
            del todo[: len(part)]
            self._finish_all_but(self._ahead)

    def _make_room(self, size: int) -> bool:
        """Free memory and halve the batch after `size` windows ran out of it; return whether to try again."""
        others = len(self._launched)
        self._finish_all_but(0)  # batches in progress hold memory too
        if size > 1:
            self._size = min(self._size, size) // 2 or 1
            log.warning(
                "out of memory on %s: continuing with batches of %d windows",
                self._embedder.device,
                self._size,
            )
        return others > 0 or size > 1

    def _finish_all_but(self, count: int) -> None:
        while len(self._launched) > count:
            self._finish(self._launched[0])
            self._launched.popleft()

    def _finish(self, launched: LaunchedBatch) -> None:
        """Wait for a batch and set its outcomes."""
        try:
            launched.wait()
            vectors = launched.vectors.numpy()
            ends = np.cumsum([len(chip.windows) for chip in launched.chips])[:-1]
            # Copies, so that vectors that wait to be written do not keep the whole batch in memory.
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
        except Exception as error:  # a GPU reports many errors only when the result is read
            self._fail(launched.chips, f"{self._embedder.device} could not encode a batch", error)
            return
        for chip, outcome in zip(launched.chips, outcomes, strict=True):
            if np.isfinite(outcome.vectors).all():
                self._clock.finite = True
                chip.outcome.set_result(outcome)
            elif self._clock.finite or self._nonfinite < FIRST_CHIPS:
                self._nonfinite += 1
                chip.outcome.set_result(Skipped(chip.source, "vector", NONFINITE))
            else:
                self._fail([chip], f"the first {FIRST_CHIPS + 1} chips of the run: {NONFINITE}")

    @staticmethod
    def _fail(chips: Sequence[ReadyChip], message: str, cause: Exception | None = None) -> None:
        reason = f": {type(cause).__name__}: {str(cause)[:300]}" if cause is not None else ""
        for chip in chips:
            error = EncodingFailed(message + reason)
            error.__cause__ = cause
            chip.outcome.set_exception(error)


def _first_of(chips: Sequence[ReadyChip], windows: int) -> list[ReadyChip]:
    """Return the first chips that together have at most this many windows; at least one chip."""
    ends = np.cumsum([len(chip.windows) for chip in chips])
    return list(chips[: max(1, int(np.searchsorted(ends, windows, side="right")))])
