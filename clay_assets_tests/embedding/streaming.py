"""Shared by the tests of streaming and embedding: chips with distinct pixels, and fast embedders.

The embedders follow the contract of `clay_model.Embedder` without its cost, so that thousands of chips pass
through the real stream in seconds.
"""

import datetime
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from clay_assets.storage import StoredObject
from clay_assets_tests.geotiffs import chip_bytes, chip_name
from clay_model import Dimensions, Embedder, Level
from clay_model.spec import V0, V15, ModelSpec, Precision
from clay_model.v0.encoder import Encoder as EncoderV0
from clay_model.v15.encoder import Encoder as EncoderV15

TILES = [f"27W{column}{row}" for column in "XYZ" for row in "ABCDEFGHJKLMNPQRSTUV"]
"""Codes of 60 tiles."""

BROKEN = b"Not Found\n"
"""A file that is refused at once, so that thousands of them take no time."""

T = TypeVar("T")


@functools.cache
def chip_of_value(value: int) -> bytes:
    """A chip whose every pixel is this value, 0 to 255; B12 is 1, since 0 in all bands would be no data."""
    pixels = np.full((13, 512, 512), value, dtype=np.uint8)
    pixels[9] = 1
    return chip_bytes(pixels)


def chip_url(tile: str, number: int) -> str:
    """URL of a chip that does not exist."""
    return f"s3://chips/{tile}/{chip_name(number, tile=tile)}"


def sources(tile: str, count: int) -> list[StoredObject]:
    """Chips of a tile, numbered from 0."""
    return [StoredObject(chip_url(tile, number), 1_000, f"etag-{number}") for number in range(count)]


def number_of(chip: StoredObject) -> int:
    """The number of a chip by its name."""
    return int(chip.url[-8:-4])


class MeanEmbedder(Embedder):
    """Each window's vector is its mean pixel, four times: enough to detect a wrong order.

    Attributes:
        batches: Windows in each batch so far.
        contexts: Places and times of the windows of each batch so far.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec = V0,
        most: int | None = None,
        pause: float = 0.0,
        error: Exception | None = None,
        precision: Precision = "fp32",
        untrained: bool = False,
    ) -> None:
        """Make one.

        Args:
            spec: The model that it imitates.
            most: Windows that fit its memory; None: any number.
            pause: Seconds that a batch takes.
            error: Raised by every batch.
            precision: The precision that it declares.
            untrained: Whether it declares its weights untrained.
        """
        self.device = torch.device("cpu")
        self.precision = precision
        self.model_size = "custom-4x1"
        self.untrained = untrained
        self.batches: list[int] = []
        self.contexts: list[tuple[Tensor, Tensor]] = []
        self._spec = spec
        self._most = most
        self._pause = pause
        self._error = error

    @property
    def spec(self) -> ModelSpec:
        """The model that it imitates."""
        return self._spec

    @property
    def dimensions(self) -> Dimensions:
        """Of a network as wide as the vectors."""
        return Dimensions(dim=4, depth=1, heads=1, mlp_ratio=1)

    def context(self, lonlat: ArrayLike, dates: Sequence[datetime.date]) -> tuple[Tensor, Tensor]:
        """As the model that it imitates."""
        return (EncoderV15 if self._spec is V15 else EncoderV0).context(lonlat, dates)

    def encode(self, pixels: Tensor, places: Tensor, dates: Tensor, level: Level) -> Tensor:
        """The same vector at every patch, in the level's shape."""
        if self._most is not None and len(pixels) > self._most:
            raise torch.cuda.OutOfMemoryError(f"no memory for {len(pixels)} windows")
        if self._error is not None:
            raise self._error
        time.sleep(self._pause)
        self.batches.append(len(pixels))
        self.contexts.append((places, dates))
        shape = self._spec.embedding_shape(level, 4)
        means = pixels[:, 0, ::64, ::64].mean(dim=(1, 2))
        return means.reshape(-1, *[1] * len(shape)).repeat(1, *shape)


def within(seconds: float, work: Callable[[], T]) -> T:
    """Run a function in a thread; a deadlock becomes a failure.

    Raises:
        TimeoutError: If it takes longer.
        BaseException: Any error of the function.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        names = sorted(thread.name for thread in threading.enumerate())
        raise TimeoutError(f"not done within {seconds} s; threads alive: {', '.join(names)}")
    if errors:
        raise errors[0]
    return results[0]
