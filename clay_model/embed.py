"""The package's entry point: pixels to embeddings.

`load_encoder` returns an `Embedder`: an encoder on a device, in a precision. `Embedder.embed` checks its
input and returns NumPy arrays; `Embedder.encode` is for callers that have already checked their chips and
keep the device busy. `Embedder.spec` describes the model.
"""

import copy
import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from clay_model.accelerate import accelerate
from clay_model.checkpoint import read_checkpoint
from clay_model.device import resolve_devices, resolve_precision
from clay_model.encoder import Encoder
from clay_model.inputs import check_lonlat, check_pixels
from clay_model.model_spec import Dimensions, Level, ModelSpec, Precision


class Embedder:
    """An encoder ready to embed chips.

    Attributes:
        encoder: The network.
        device: The encoder's device.
        precision: Precision of its matrix products.
        model_size: One of `spec.sizes`, as the checkpoint says; `custom` for another size.
        untrained: Whether the checkpoint says that its weights were never trained.
    """

    def __init__(
        self,
        encoder: Encoder,
        device: torch.device,
        precision: Precision,
        *,
        model_size: str = "custom",
        untrained: bool = False,
        fast: bool = True,
    ) -> None:
        """Move an encoder to a device.

        Args:
            encoder: A float32 encoder on the CPU; it is changed and must not be used elsewhere.
            device: Where to run.
            precision: `fp32` or `bf16`.
            model_size: As the checkpoint says.
            untrained: As the checkpoint says.
            fast: Use the device's fast kernels; `False` keeps the plain path, the reference of the tests.
        """
        self.device = device
        self.precision = precision
        self.model_size = model_size
        self.untrained = untrained
        if precision == "bf16":
            encoder.to_precision(torch.bfloat16)
        self.encoder: Encoder = encoder.to(device).eval()
        # On the CPU, the thousand tokens or more of one chip fill the matrix units as well as those of eight,
        # and its activations stay in the caches. A vector then cannot depend on the rest of its batch.
        self._chips_at_once = 1 if fast and device.type == "cpu" else None
        if fast:
            accelerate(self.encoder, device, precision)

    @property
    def spec(self) -> ModelSpec:
        """The model: bands, window size, levels and the rest."""
        return self.encoder.spec

    @property
    def dimensions(self) -> Dimensions:
        """The network's size."""
        return self.encoder.dimensions

    @property
    def model_name(self) -> str:
        """Model and size, e.g. `clay-v0-small` or `clay-v1.5-large`."""
        return self.spec.model_name(self.model_size)

    def embed(
        self,
        pixels: ArrayLike | Tensor,
        *,
        lonlat: ArrayLike,
        dates: Sequence[datetime.date],
        level: Level | None = None,
    ) -> NDArray[np.float32]:
        """Embed a batch of chips.

        Args:
            pixels: (B, C, S, S) in the physical units and order of `spec.bands`, an array or a tensor of any
                real type; computed on as float32. Clay v0: (B, 13, 512, 512). Clay v1.5: (B, 10, 256, 256),
                or another multiple of 8 pixels a side.
            lonlat: (B, 2) degrees in WGS 84, longitude first, of the chips' centres.
            dates: B acquisition dates or `datetime`s, which without a time zone are in UTC. Clay v1.5 uses
                the hour; for a date without one it takes that of `v15.encodings.overpass`.
            level: How much of a chip one vector describes; None for `spec.default_level`.

        Returns:
            float32. Clay v0: (B, D) for `mean`, (B, 16, 16, D) for `patch`, (B, 6, 16, 16, D) for `group`.
            Clay v1.5: (B, D) for `cls` and `mean`, (B, S / 8, S / 8, D) for `patch`.

        Raises:
            ValueError: If a shape, a coordinate or the level is wrong, or a pixel is not finite.
            TypeError: If the pixels are complex, or an element of `dates` is not a date.
        """
        level = level or self.spec.default_level
        self.spec.embedding_shape(level, self.dimensions.dim)  # raises for an unknown level before any work
        tensor = check_pixels(pixels, self.spec)
        for name, count in (("lonlat", len(check_lonlat(lonlat))), ("dates", len(dates))):
            if count != len(tensor):
                raise ValueError(f"{name} has {count} rows for {len(tensor)} chips, expected one row a chip")
        return self.encode(tensor, *self.context(lonlat, dates), level).cpu().numpy()

    def context(self, lonlat: ArrayLike, dates: Sequence[datetime.date]) -> tuple[Tensor, Tensor]:
        """Return places and dates as `encode` expects them.

        Args:
            lonlat: As in `embed`.
            dates: As in `embed`.

        Returns:
            Two float32 tensors on the CPU, of B rows each.

        Raises:
            ValueError: If a coordinate is out of range.
            TypeError: If an element of `dates` is not a date.
        """
        return self.encoder.context(lonlat, dates)

    @torch.inference_mode()
    def encode(self, pixels: Tensor, places: Tensor, dates: Tensor, level: Level) -> Tensor:
        """Embed chips without checking them.

        Args:
            pixels: (B, C, S, S) float32, on any device.
            places: The first tensor of `context`.
            dates: The second tensor of `context`.
            level: How much of a chip one vector describes.

        Returns:
            float32 on the embedder's device; shapes as in `embed`. CUDA may still be computing it.
        """
        if not len(pixels):
            shape = self.spec.embedding_shape(level, self.dimensions.dim)
            return torch.empty((0, *shape), device=self.device)
        # Only to a GPU: an asynchronous copy from a GPU could be read before it has arrived.
        no_wait = self.device.type == "cuda"
        inputs = [part.to(self.device, non_blocking=no_wait) for part in (pixels, places, dates)]
        steps = zip(*(part.split(self._chips_at_once or len(part)) for part in inputs), strict=True)
        return torch.cat([self.encoder.pool(self.encoder(*step), level).float() for step in steps])


def load_encoder(path: str | Path, device: str = "auto", precision: str = "fp32") -> Embedder:
    """Load a checkpoint of either model onto a device.

    Args:
        path: A local Lightning checkpoint; its weights determine the model.
        device: `auto` (a CUDA device if there is one), `cpu`, `cuda`, `cuda:0`; the first one of several.
        precision: `fp32`, `bf16`, or `auto`: bf16 where the device multiplies it natively.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is not a checkpoint of either model; the message describes it.
        ValueError: If there is no such device or precision.
    """
    return load_encoders(path, resolve_devices(device)[:1], precision)[0]


def load_encoders(path: str | Path, devices: Sequence[torch.device], precision: str) -> list[Embedder]:
    """Load a checkpoint once for several devices; raises the same errors as `load_encoder`.

    Args:
        path: A local Lightning checkpoint; its weights determine the model.
        devices: At least one; each gets its own copy of the network.
        precision: `fp32`, `bf16`, or `auto`, resolved per device.
    """
    precisions = [resolve_precision(precision, device) for device in devices]
    checkpoint = read_checkpoint(path)
    # Copied first: an `Embedder` changes its encoder.
    encoders = [checkpoint.encoder, *(copy.deepcopy(checkpoint.encoder) for _ in devices[1:])]
    return [
        Embedder(encoder, device, resolved, model_size=checkpoint.model_size, untrained=checkpoint.untrained)
        for encoder, device, resolved in zip(encoders, devices, precisions, strict=True)
    ]
