"""`BatchLauncher`: brings a batch to the device, starts its computation, and brings the vectors back.

Belongs here: CUDA streams and copies. Does not belong here: errors (`device_loop.py`), the network
(`clay_model`).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from clay_assets.embedding.stream.ready_queue import ReadyChip
from clay_model import Embedder, Level

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""Messages of errors that are not `OutOfMemoryError`: of pinned memory, the CPU's allocator, cuBLAS."""


@dataclass(eq=False)
class LaunchedBatch:
    """A batch that the device may still be computing; its vectors are valid after `wait`."""

    chips: Sequence[ReadyChip]
    vectors: Tensor
    wait: Callable[[], None]


class BatchLauncher:
    """Starts batches on one device; a GPU still computes them when `launch` returns."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        device = embedder.device
        # Pixels have a stream of their own: in the stream of the products they would wait for those.
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def launch(self, chips: Sequence[ReadyChip], level: Level, most: int) -> LaunchedBatch:
        """Start to encode the windows of some chips.

        Args:
            chips: At least one.
            level: How much of a chip one vector describes.
            most: Windows per forward pass.
        """
        counts = [len(chip.windows) for chip in chips]
        places = [window.lonlat for chip in chips for window in chip.windows]
        times = [chip.time or chip.date for chip in chips for _ in chip.windows]
        inputs = (self._to_device(chips, counts), *self._embedder.context(places, times))
        vectors = [
            self._embedder.encode(images, where, when, level)
            for images, where, when in zip(*(tensor.split(most) for tensor in inputs), strict=True)
        ]
        return LaunchedBatch(chips, *_to_host(torch.cat(vectors) if len(vectors) > 1 else vectors[0]))

    def _to_device(self, chips: Sequence[ReadyChip], counts: list[int]) -> Tensor:
        """Move pixels (windows, bands, side, side) to the device as float32; `counts`: windows per chip."""
        device = self._embedder.device
        with torch.cuda.stream(self._copies) if self._copies is not None else nullcontext():
            pixels = torch.empty((sum(counts), *chips[0].pixels.shape[1:]), device=device)
            for part, chip in zip(pixels.split(counts), chips, strict=True):
                # Copied interleaved, then separated: one copy that does both separates them on the CPU.
                part.copy_(chip.pixels.to(device, non_blocking=True))
        if self._copies is not None:
            products = torch.cuda.current_stream(device)
            products.wait_stream(self._copies)
            pixels.record_stream(products)  # else their memory could be reused while it is still read
        return pixels


def is_out_of_memory(error: Exception) -> bool:
    """Return whether the device or the host ran out of memory."""
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in OUT_OF_MEMORY
    )


def _to_host(vectors: Tensor) -> tuple[Tensor, Callable[[], None]]:
    """Start to copy a batch's vectors to the host, before the next batch enters the GPU's queue.

    Returns:
        Vectors in the host's memory, and a function that returns once they are valid.
    """
    if vectors.device.type != "cuda":
        return vectors, lambda: None
    host = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
    host.copy_(vectors, non_blocking=True)
    arrived = torch.cuda.Event(blocking=True)  # blocking: else waiting would keep a core busy
    arrived.record(torch.cuda.current_stream(vectors.device))
    return host, arrived.synchronize
