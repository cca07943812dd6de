"""`ChipReader`: fetches one chip and decodes it for a device, or sets its outcome if that is impossible.

Belongs here: which errors skip a chip, windows, memory layout, thumbnails. Does not belong here: reading the
file (`chips`), the fetchers' threads (`chip_stream.py`).
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clay_assets.chips import MAX_CHIP_BYTES, ChipRejected, read_chip
from clay_assets.embedding.stream.ready_queue import ReadyChip
from clay_assets.results.outcomes import Outcome, Skipped
from clay_assets.results.picture import chip_thumbnail
from clay_assets.storage import AccessDenied, StoredObject
from clay_model.spec import ModelSpec

DECODERS_FOR_A_CPU = 4
"""Maximum chips decoded at a time if a CPU embeds: one core decodes more chips than all cores embed."""


class StreamTile:
    """A tile in the stream: the queue of its chips' outcomes, in their order."""

    def __init__(self, name: str, chips: int) -> None:
        self.name = name
        self.chips = chips
        self.outcomes: SimpleQueue[Future[Outcome]] = SimpleQueue()
        self.abandoned = False


class ChipReader:
    """Fetches chips in the caller's threads and decodes them in its own.

    Attributes:
        decoders: Chips decoded at a time.
    """

    def __init__(
        self,
        fetch: Callable[[StoredObject], bytes],
        spec: ModelSpec,
        *,
        max_nodata: float,
        for_gpu: bool,
        decoders: int | None,
    ) -> None:
        """Start no thread yet.

        Args:
            fetch: Returns a chip's bytes; called from many threads.
            spec: The model.
            max_nodata: Highest share of a chip's pixels without data, 0 to 1.
            for_gpu: Whether a GPU embeds the chips.
            decoders: Chips decoded at a time; default: one a core, on a CPU at most `DECODERS_FOR_A_CPU`.
        """
        self.decoders = decoders or (_cores() if for_gpu else min(_cores(), DECODERS_FOR_A_CPU))
        # Decoding is bound by cores; more at a time would only hold more pixels. It has threads of its own:
        # the C library keeps freed memory per thread, and 18 threads decoding in turns held 340 MB more.
        self._pool = ThreadPoolExecutor(self.decoders, thread_name_prefix="decode")
        self._fetch = fetch
        self._spec = spec
        self._max_nodata = max_nodata
        self._for_gpu = for_gpu

    def close(self) -> None:
        """Wait for the chips being decoded and stop."""
        self._pool.shutdown()

    def read(self, tile: StreamTile, source: StoredObject, outcome: Future[Outcome]) -> ReadyChip | None:
        """Fetch and decode a chip; return None if its outcome is already set or its tile was abandoned."""
        try:
            if source.size > MAX_CHIP_BYTES:
                raise ChipRejected(
                    "layout",
                    f"has {source.size:,} bytes, expected at most {MAX_CHIP_BYTES:,}: it is not fetched",
                )
            data = b"" if tile.abandoned else self._fetch(source)
            return self._pool.submit(self._decode, data, tile, source, outcome).result()
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


def _cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


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
