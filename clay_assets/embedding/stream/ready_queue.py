"""Decoded chips between the fetchers, which bring them one by one, and the devices, which take batches.

Belongs here: who waits for whom. Does not belong here: how many chips there may be (`chip_stream.py`).
"""

import datetime
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from torch import Tensor

from clay_assets.chips.place import Place
from clay_assets.results.outcomes import Outcome
from clay_assets.storage import StoredObject


@dataclass(eq=False)
class ReadyChip:
    """A decoded chip on its way to a device.

    Attributes:
        tile: MGRS code of the tile it is embedded for.
        source: The object it was read from.
        pixels: (W, bands, side, side) of its W windows, float32 or the file's integers; in pinned memory
            where a GPU will fetch them.
        windows: Places of the windows.
        date: Acquisition date.
        time: Moment of acquisition, UTC; None where it is not known or not needed.
        thumbnails: Of the windows, by `results.picture.chip_thumbnail`.
        nodata: Share of its pixels without data, 0 to 1.
        outcome: Where the consumer waits for it.
    """

    tile: str
    source: StoredObject
    pixels: Tensor
    windows: tuple[Place, ...]
    date: datetime.date
    time: datetime.datetime | None
    thumbnails: tuple[bytes, ...]
    nodata: float
    outcome: Future[Outcome]


class ReadyQueue:
    """Chips that are ready, and the knowledge of whether more are on their way. Safe from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready: deque[ReadyChip] = deque()
        self._on_their_way = 0
        self._all_announced = False
        self._closed = False
        self._error: Exception | None = None

    def announce(self) -> None:
        """Say that a chip is on its way."""
        with self._changed:
            self._on_their_way += 1

    def arrive(self, chip: ReadyChip | None) -> None:
        """Bring a chip that was announced; None if nothing came of it."""
        with self._changed:
            self._on_their_way -= 1
            error = self._error
            if chip is not None and not self._closed:
                self._ready.append(chip)
            self._changed.notify_all()
        if chip is not None and error is not None:
            chip.outcome.set_exception(error)

    def all_announced(self) -> None:
        """Say that no more chips will be announced."""
        with self._changed:
            self._all_announced = True
            self._changed.notify_all()

    def take(self, size: int, *, wait: bool) -> list[ReadyChip]:
        """A batch.

        Args:
            size: Windows wanted.
            wait: Whether to wait for a batch.

        Returns:
            Chips with as many windows, or a few more; fewer once no chip is on its way, because the consumer
            may wait for just these before it adds more, or they hold all slots; none at the end, or instead
            of a wait.
        """
        with self._changed:
            while not self._closed:
                enough = sum(len(chip.windows) for chip in self._ready) >= size
                if enough or (self._ready and not self._on_their_way):
                    return self._pop(size)
                if not wait or (self._all_announced and not self._on_their_way and not self._ready):
                    return []
                self._changed.wait()
        return []

    def _pop(self, windows: int) -> list[ReadyChip]:
        batch: list[ReadyChip] = []
        while self._ready and windows > 0:
            batch.append(self._ready.popleft())
            windows -= len(batch[-1].windows)
        return batch

    def discard(self, abandoned: Callable[[ReadyChip], bool]) -> list[ReadyChip]:
        """Remove and return the chips for which `abandoned` is true."""
        with self._changed:
            out = [chip for chip in self._ready if abandoned(chip)]
            self._ready = deque(chip for chip in self._ready if not abandoned(chip))
            return out

    def fail(self, error: Exception) -> None:
        """Close, and give each chip that is ready or on its way this error as its outcome."""
        with self._changed:
            self._error = error
            self._closed = True
            lost = list(self._ready)
            self._ready.clear()
            self._changed.notify_all()
        for chip in lost:
            chip.outcome.set_exception(error)

    def close(self) -> None:
        """Give out no more batches: a device that waits for one gets an empty one."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
