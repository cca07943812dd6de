"""From pixels to embeddings: the package's front door.

`load_encoder` gives an `Embedder`: an encoder on a device, in a precision. `Embedder.embed` checks what it
is given and answers NumPy arrays; `Embedder.encode` is the unchecked inside, for callers that have
checked their chips already and keep the device busy.
"""

import copy
import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from clay_model.accelerate import accelerate, chips_at_once
from clay_model.checkpoint import read_checkpoint
from clay_model.device import resolve_devices, resolve_precision
from clay_model.encoder import Encoder
from clay_model.encodings import encode_dates, encode_places
from clay_model.spec import (
    BAND_GROUPS,
    BANDS,
    CHIP_SIZE,
    EXTRA_TOKENS,
    GRID,
    Dimensions,
    Level,
    Precision,
    embedding_shape,
)


def pool(tokens: Tensor, level: Level) -> Tensor:
    """Reduce encoded tokens to embeddings; the tokens of place and date are left out of every level.

    Args:
        tokens: (B, N, D) from the encoder.
        level: How much of a chip one vector describes.

    Returns:
        (B, D) for `mean`, (B, 16, 16, D) for `patch`, (B, 6, 16, 16, D) for `group`.
    """
    patches = tokens[:, :-EXTRA_TOKENS]  # (B, G*L, D)
    if level == "mean":
        return patches.mean(dim=1)  # (B, D)
    grouped = patches.unflatten(1, (len(BAND_GROUPS), GRID, GRID))  # (B, G, 16, 16, D)
    return grouped.mean(dim=1) if level == "patch" else grouped


class Embedder:
    """An encoder ready to embed chips.

    Attributes:
        encoder: The network.
        device: Where it is.
        precision: What its matrix products are done in.
        model_size: `tiny`, `small`, `medium` or `large`, as the checkpoint says; `custom` for another size.
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
        """Take over an encoder and put it on a device.

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
        self.encoder = encoder.to(device).eval()
        self._chips_at_once = chips_at_once(device) if fast else None
        if fast:
            accelerate(self.encoder, device, precision)

    @property
    def dimensions(self) -> Dimensions:
        """The network's size."""
        return self.encoder.dimensions

    def embed(
        self,
        pixels: ArrayLike | Tensor,
        *,
        lonlat: ArrayLike,
        dates: Sequence[datetime.date],
        level: Level = "mean",
    ) -> NDArray[np.float32]:
        """Embed a batch of chips.

        Args:
            pixels: (B, 13, 512, 512) in the physical units and order of `spec.BANDS`, an array or a tensor
                of any real type; computed on as float32.
            lonlat: (B, 2) degrees in WGS 84, longitude first, of the chips' centres.
            dates: B acquisition dates.
            level: How much of a chip one vector describes.

        Returns:
            float32: (B, D) for `mean`, (B, 16, 16, D) for `patch`, (B, 6, 16, 16, D) for `group`.

        Raises:
            ValueError: If a shape, a coordinate or the level is wrong, or a pixel is not finite.
            TypeError: If the pixels are complex, or a date is no date.
        """
        embedding_shape(level, self.dimensions.dim)  # refuses an unknown level before any work
        tensor = _check_pixels(pixels)
        places, times = encode_places(lonlat), encode_dates(dates)
        for name, count in (("lonlat", len(places)), ("dates", len(times))):
            if count != len(tensor):
                raise ValueError(f"{name} has {count} rows for {len(tensor)} chips, expected one row a chip")
        return self.encode(tensor, places, times, level).cpu().numpy()

    @torch.inference_mode()
    def encode(self, pixels: Tensor, places: Tensor, dates: Tensor, level: Level) -> Tensor:
        """Embed chips that were checked before.

        Args:
            pixels: (B, 13, 512, 512) float32, on any device.
            places: (B, 2) float32 from `encode_places`.
            dates: (B, 3) float32 from `encode_dates`.
            level: How much of a chip one vector describes.

        Returns:
            float32 on the embedder's device; shapes as in `embed`. On CUDA it may still be computing.
        """
        if not len(pixels):
            return torch.empty((0, *embedding_shape(level, self.dimensions.dim)), device=self.device)
        # Only to a GPU: on the way from one, a copy that is not waited for is read before it is there.
        no_wait = self.device.type == "cuda"
        inputs = [part.to(self.device, non_blocking=no_wait) for part in (pixels, places, dates)]
        steps = zip(*(part.split(self._chips_at_once or len(part)) for part in inputs), strict=True)
        return torch.cat([pool(self.encoder(*step), level).float() for step in steps])


def _check_pixels(pixels: ArrayLike | Tensor) -> Tensor:
    """The pixels as a float32 tensor, or an error that says what is wrong with them."""
    given = pixels if isinstance(pixels, Tensor) else np.asarray(pixels)
    real = not given.is_complex() if isinstance(given, Tensor) else given.dtype.kind in "biuf"
    if not real:
        raise TypeError(f"pixels are {given.dtype}, expected real numbers")
    expected = (len(BANDS), CHIP_SIZE, CHIP_SIZE)
    if given.ndim != 4 or tuple(given.shape[1:]) != expected:
        raise ValueError(
            f"pixels have shape {tuple(given.shape)}, expected (B, {', '.join(map(str, expected))}):"
            f" chips, bands ({' '.join(BANDS)}), rows, columns"
        )
    if not isinstance(given, Tensor):
        # PyTorch takes neither flipped, foreign-endian nor read-only arrays: copied only where need be.
        given = torch.from_numpy(np.require(given, np.float32, ["C", "W"]))
    tensor = given.to(torch.float32)
    finite = torch.isfinite(tensor)
    if not finite.all():
        chip, band = (int(index) for index in (~finite).nonzero()[0][:2])
        raise ValueError(
            f"{int((~finite).sum())} pixels are not finite, the first in band {BANDS[band]} of chip {chip};"
            " expected finite numbers (fill or leave out chips with no-data)"
        )
    return tensor


def load_encoder(path: str | Path, device: str = "auto", precision: str = "fp32") -> Embedder:
    """Load a checkpoint, ready to embed.

    Args:
        path: A local Lightning checkpoint of Clay v0.
        device: `auto` (a CUDA device if there is one), `cpu`, `cuda`, `cuda:0`. The first of several.
        precision: `fp32`, `bf16`, or `auto`: bf16 where the device multiplies it natively.

    Returns:
        The encoder on its device.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is no checkpoint of Clay v0; the message says what it is.
        ValueError: If there is no such device or precision.
    """
    return load_encoders(path, resolve_devices(device)[:1], precision)[0]


def load_encoders(path: str | Path, devices: Sequence[torch.device], precision: str) -> list[Embedder]:
    """Load a checkpoint once for several devices; raises what `load_encoder` does.

    Args:
        path: A local Lightning checkpoint of Clay v0.
        devices: At least one; each gets its own copy of the network.
        precision: `fp32`, `bf16`, or `auto`, decided for each.
    """
    precisions = [resolve_precision(precision, device) for device in devices]
    checkpoint = read_checkpoint(path)
    # Copied before any is changed by the `Embedder` that takes it over.
    encoders = [checkpoint.encoder, *(copy.deepcopy(checkpoint.encoder) for _ in devices[1:])]
    return [
        Embedder(encoder, device, resolved, model_size=checkpoint.model_size, untrained=checkpoint.untrained)
        for encoder, device, resolved in zip(encoders, devices, precisions, strict=True)
    ]
