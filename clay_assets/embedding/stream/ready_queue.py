"""Queue of decoded chips: fetchers add them one by one, devices take batches.

Does not belong here: the bound on their number (`chip_stream.py`).
"""

import datetime
import threading
from collections import deque
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
        tile: MGRS code of the tile that it is embedded for.
        source: The object that it was read from.
        pixels: (W, bands, side, side) of its W windows, float32 or the file's integers; in pinned memory for
            a GPU.
        windows: Places of the windows.
        date: Acquisition date.
        time: Moment of acquisition, UTC; None if not known or not needed.
        thumbnails: Thumbnails of the windows, by `results.picture.chip_thumbnail`.
        nodata: Share of its pixels without data, 0 to 1.
        outcome: What the consumer waits for.
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
    """Decoded chips, and the number of those announced but not decoded yet. Safe from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready: deque[ReadyChip] = deque()
        self._on_their_way = 0
        self._all_announced = False
        self._closed = False
        self._error: Exception | None = None

    def announce(self) -> None:
        """Count a chip that is about to be fetched."""
        with self._changed:
            self._on_their_way += 1

    def arrive(self, chip: ReadyChip | None) -> None:
        """Add a chip that was announced; None if it could not be used."""
        with self._changed:
            self._on_their_way -= 1
            error = self._error
            if chip is not None and not self._closed:
                self._ready.append(chip)
            self._changed.notify_all()
        if chip is not None and error is not None:
            chip.outcome.set_exception(error)

    def all_announced(self) -> None:
        """Declare that no more chips will be announced."""
        with self._changed:
            self._all_announced = True
            self._changed.notify_all()

    def take(self, size: int, *, wait: bool) -> list[ReadyChip]:
        """Take a batch.

        Args:
            size: Number of windows.
            wait: Whether to wait for a batch.

        Returns:
            Chips with at least as many windows. Fewer if no more chips are announced, because the consumer
            may wait for these before it adds more, or they hold all slots. Empty at the end, or if `wait` is
            False and no batch is ready.
        """
        with self._changed:
            while not self._closed:
                enough = sum(len(chip.windows) for chip in self._ready) >= size
                if enough or (self._ready and not self._on_their_way):
                    batch: list[ReadyChip] = []
                    while self._ready and size > 0:
                        batch.append(self._ready.popleft())
                        size -= len(batch[-1].windows)
                    return batch
                if not wait or (self._all_announced and not self._on_their_way and not self._ready):
                    return []
                self._changed.wait()
        return []

    def discard(self, tile: str) -> list[ReadyChip]:
        """Remove and return the chips of a tile."""
        with self._changed:
            discarded = [chip for chip in self._ready if chip.tile == tile]
            self._ready = deque(chip for chip in self._ready if chip.tile != tile)
            return discarded

    def fail(self, error: Exception) -> None:
        """Close the queue and set this error as the outcome of each chip that is ready or announced."""
        with self._changed:
            self._error = error
            lost = list(self._ready)
            self.close()
        for chip in lost:
            chip.outcome.set_exception(error)

    def close(self) -> None:
        """Hand out no more batches: a device that waits for one gets an empty one."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
