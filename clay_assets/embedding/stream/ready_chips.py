"""Chips on their way to a device: `ChipReader` fetches and decodes them, `ReadyQueue` forms batches."""

import datetime
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clay_assets.chips import MAX_CHIP_BYTES, ChipRejected, read_chip
from clay_assets.chips.place import Place
from clay_assets.results.outcomes import Embedded, Outcome, Skipped
from clay_assets.results.picture import chip_thumbnail
from clay_assets.storage import AccessDenied, StoredObject
from clay_model.spec import ModelSpec


@dataclass(eq=False)
class StreamTile:
    """A tile in the stream."""

    name: str
    chips: int
    outcomes: SimpleQueue[Future[Outcome]] = field(default_factory=SimpleQueue)  # in the order of the chips
    abandoned: bool = False


@dataclass(eq=False)
class ReadyChip:
    """A decoded chip of W windows on its way to a device."""

    tile: str  # MGRS code of the tile that it is embedded for
    source: StoredObject
    pixels: Tensor  # (W, bands, side, side), float32 or the file's integers; in pinned memory for a GPU
    windows: tuple[Place, ...]
    date: datetime.date
    time: datetime.datetime | None  # of acquisition, UTC; None if not known or not needed
    thumbnails: tuple[bytes, ...]  # of the windows, by `results.picture.chip_thumbnail`
    nodata: float  # share of its pixels without data, 0 to 1
    outcome: Future[Outcome]  # what the consumer waits for

    def embedded(self, vectors: NDArray[np.float32]) -> Embedded:
        """Return its outcome with the vectors of its windows, (W, …)."""
        footprints = tuple(window.footprint for window in self.windows)
        return Embedded(self.source, self.date, footprints, vectors, self.thumbnails, self.nodata)


@dataclass
class ChipReader:
    """Fetches chips in the caller's threads and decodes them in its own."""

    fetch: Callable[[StoredObject], bytes]
    spec: ModelSpec
    max_nodata: float  # highest share of a chip's pixels without data, 0 to 1
    for_gpu: bool
    decoders: int  # chips decoded at a time; 0: as many as the device needs

    def __post_init__(self) -> None:
        affinity = getattr(os, "sched_getaffinity", None)  # Linux has it: the cores that this process may use
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        # If a CPU embeds, one core decodes more chips than all cores embed.
        self.decoders = self.decoders or (cores if self.for_gpu else min(cores, 4))
        # Decoding is bound by cores; more at a time would only hold more pixels. It has threads of its own:
        # the C library keeps freed memory per thread, and 18 threads decoding in turns held 340 MB more.
        self.pool = ThreadPoolExecutor(self.decoders, thread_name_prefix="decode")

    def read(self, tile: StreamTile, source: StoredObject, outcome: Future[Outcome]) -> ReadyChip | None:
        """Fetch and decode a chip; return None if its outcome is already set or its tile was abandoned."""
        try:
            if source.size > MAX_CHIP_BYTES:
                sizes = f"has {source.size:,} bytes, expected at most {MAX_CHIP_BYTES:,}"
                raise ChipRejected("layout", f"{sizes}: it is not fetched")
            data = b"" if tile.abandoned else self.fetch(source)
            return self.pool.submit(self._decode, data, tile, source, outcome).result()
        except ChipRejected as rejection:
            outcome.set_result(Skipped(source, rejection.reason, str(rejection)))
        except AccessDenied as denied:
            if denied.systemic:  # the whole store
                outcome.set_exception(denied)
            else:
                outcome.set_result(Skipped(source, "unreadable", str(denied)))
        except BaseException as error:  # the consumer waits for this outcome: every error must reach it
            outcome.set_exception(error)
        return None

    def _decode(
        self, data: bytes, tile: StreamTile, source: StoredObject, outcome: Future[Outcome]
    ) -> ReadyChip | None:
        if tile.abandoned:
            outcome.cancel()
            return None
        chip = read_chip(data, source.url, spec=self.spec, tile=tile.name, max_nodata=self.max_nodata)
        windows = _windows(chip.pixels, self.spec.window_size)
        return ReadyChip(
            tile=tile.name,
            source=source,
            pixels=_to_tensor(windows, for_gpu=self.for_gpu),
            windows=chip.windows,
            date=chip.date,
            time=chip.time,
            thumbnails=tuple(map(chip_thumbnail, windows)),
            nodata=chip.nodata,
            outcome=outcome,
        )


def _windows(pixels: NDArray[Any], size: int) -> NDArray[Any]:
    """Return a chip's windows, (W, bands, size, size), row by row; a view if the chip is one window."""
    bands, side = len(pixels), pixels.shape[1] // size
    parts = pixels.reshape(bands, side, size, side, size).transpose(1, 3, 0, 2, 4)
    return parts.reshape(-1, bands, size, size) if side > 1 else parts[0]


def _to_tensor(pixels: NDArray[Any], *, for_gpu: bool) -> Tensor:
    """Convert pixels (W, bands, size, size) to a tensor for a device.

    The bands of a file may be interleaved. For a CPU they are separated here, in the decoders' threads. For a
    GPU they stay interleaved, because it separates them far faster (see `DeviceLoop`).
    """
    if not for_gpu:
        return torch.from_numpy(np.ascontiguousarray(pixels))
    # Copies from pinned memory overlap the device's work.
    tensor = torch.empty_like(torch.from_numpy(pixels), pin_memory=True)
    np.copyto(tensor.numpy(), pixels)
    return tensor


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
        """Take chips with at least `size` windows; wait for them if `wait`.

        Returns fewer if no more chips are announced, because the consumer may wait for these before it adds
        more, or they hold all slots. Returns none at the end, or if `wait` is False and no batch is ready.
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
                if not wait or (self._all_announced and not self._on_their_way):
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
