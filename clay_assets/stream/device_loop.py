"""One device's thread: takes batches, encodes them, hands out what became of each chip.

Belongs here: batches and what can go wrong with them on a device. Does not belong here: how the network works
(`clay_model`), or who waits for the outcomes (`chip_stream.py`).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clay_assets.outcomes import Embedded
from clay_assets.stream.waiting_room import ReadyChip, WaitingRoom
from clay_model import Embedder, Level
from clay_model.encodings import encode_dates, encode_places

log = logging.getLogger(__name__)


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
    """

    encoding: float = 0.0
    waiting: float = 0.0
    batches: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, encoding: float, waiting: float, batches: int) -> None:
        """Count time; safe from any thread. Before the first batch there was nothing to do but wait."""
        with self.lock:
            self.encoding += encoding
            self.waiting += waiting if self.batches else 0.0
            self.batches += batches


@dataclass(eq=False)
class _Launched:
    """A batch given to the device, which may still be computing."""

    chips: Sequence[ReadyChip]
    vectors: Tensor


class DeviceLoop:
    """Encodes batch after batch on one device until the waiting room has no more."""

    def __init__(
        self, embedder: Embedder, room: WaitingRoom, *, level: Level, batch_size: int, clock: StreamClock
    ) -> None:
        """Describe the loop; `run` is for a thread of its own.

        Args:
            embedder: The network on this device.
            room: Where the chips come from.
            level: How much of a chip one vector describes.
            batch_size: Chips per forward pass, as long as memory suffices.
            clock: Gets the time spent.
        """
        self._embedder = embedder
        self._room = room
        self._level: Level = level
        self._size = batch_size
        self._clock = clock
        self._launched: deque[_Launched] = deque()
        # A GPU gets its next batch while it computes this one; a CPU has computed when `encode` returns.
        self._ahead = 1 if embedder.device.type == "cuda" else 0

    def run(self) -> None:
        """Encode until there is nothing more."""
        while self._step():
            pass

    def _step(self) -> bool:
        """One batch; False at the end. A function of its own, so that no pixels are held while waiting."""
        started = time.perf_counter()
        batch = self._room.take(self._size, wait=not self._launched)
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
        todo = list(batch)
        while todo:
            part = todo[: self._size]
            try:
                self._launched.append(_Launched(part, self._encode(part)))
            except torch.cuda.OutOfMemoryError as error:
                self._finish_all_but(0)  # their results hold memory too
                if len(part) > 1:
                    self._size = len(part) // 2
                    log.warning(
                        "out of memory on %s: on with batches of %d chips", self._embedder.device, self._size
                    )
                    continue
                self._fail(part, f"{self._embedder.device} has no memory for a single chip", error)
            except Exception as error:  # those who wait for these chips must hear of it
                self._fail(part, f"{self._embedder.device} could not encode a batch", error)
            del todo[: len(part)]

    def _encode(self, part: Sequence[ReadyChip]) -> Tensor:
        pixels = torch.empty((len(part), *part[0].pixels.shape), device=self._embedder.device)
        for row, chip in zip(pixels, part, strict=True):
            row.copy_(chip.pixels, non_blocking=True)
        places = encode_places([chip.lonlat for chip in part])
        dates = encode_dates([chip.date for chip in part])
        return self._embedder.encode(pixels, places, dates, self._level)

    def _finish_all_but(self, count: int) -> None:
        while len(self._launched) > count:
            self._finish(self._launched.popleft())

    def _finish(self, launched: _Launched) -> None:
        """Hand out a batch's outcomes; waits for the device."""
        try:
            vectors = launched.vectors.cpu().numpy()
            finite = np.isfinite(vectors).reshape(len(vectors), -1).all(axis=1)
            # Copies, so that a vector that waits to be written does not keep its whole batch.
            outcomes = [
                Embedded(chip.source, chip.date, chip.footprint, vector.copy(), chip.thumbnail)
                for chip, vector in zip(launched.chips, vectors, strict=True)
            ]
        except Exception as error:  # what a GPU could not do is often said only when its result is asked for
            self._fail(launched.chips, f"{self._embedder.device} could not encode a batch", error)
            return
        for chip, outcome, usable in zip(launched.chips, outcomes, finite, strict=True):
            if usable:
                chip.outcome.set_result(outcome)
            else:
                self._fail([chip], _not_finite(chip.source.url))

    @staticmethod
    def _fail(chips: Sequence[ReadyChip], message: str, cause: Exception | None = None) -> None:
        reason = f": {type(cause).__name__}: {str(cause)[:300]}" if cause is not None else ""
        for chip in chips:
            error = EncodingFailed(message + reason)
            error.__cause__ = cause
            chip.outcome.set_exception(error)


def _not_finite(url: str) -> str:
    return (
        f"the network gave numbers that are not finite for {url}, whose pixels are: the checkpoint's weights"
        " are damaged, or not those of Clay v0"
    )
