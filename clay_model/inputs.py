"""Checks callers' input, for either model: pixels, places and dates."""

import datetime
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from clay_model.model_spec import ModelSpec


def check_lonlat(lonlat: ArrayLike) -> NDArray[np.float64]:
    """Return places as an array.

    Args:
        lonlat: (B, 2) degrees, longitude first, as an array or nested sequences.

    Raises:
        ValueError: If the shape is wrong, or a longitude is outside ±180 or a latitude outside ±90.
    """
    degrees = np.asarray(lonlat, dtype=np.float64)
    if degrees.ndim != 2 or degrees.shape[1] != 2:
        raise ValueError(f"lonlat has shape {degrees.shape}, expected (B, 2): longitude, latitude in degrees")
    for column, (name, limit) in enumerate((("longitude", 180.0), ("latitude", 90.0))):
        good = np.abs(degrees[:, column]) <= limit  # NaN compares false, so it is refused as well
        if not good.all():
            row = int(np.argmin(good))
            raise ValueError(
                f"lonlat[{row}] has {name} {degrees[row, column]}, expected -{limit:g} to {limit:g} degrees"
                " (longitude comes first)"
            )
    return degrees


def check_dates(dates: Sequence[datetime.date]) -> None:
    """Raise TypeError if an element is neither a date nor a `datetime`."""
    for row, date in enumerate(dates):
        if not isinstance(date, datetime.date) or date != date:  # pandas' NaT calls itself a date
            raise TypeError(f"dates[{row}] is {date!r}, expected a datetime.date")


def check_pixels(pixels: ArrayLike | Tensor, spec: ModelSpec) -> Tensor:
    """Return the pixels as a float32 tensor.

    Args:
        pixels: (B, C, S, S), an array or a tensor of any real type.
        spec: The model.

    Raises:
        TypeError: If they are not real numbers.
        ValueError: If the shape is wrong, or a pixel is not finite.
    """
    given = pixels if isinstance(pixels, Tensor) else np.asarray(pixels)
    real = not given.is_complex() if isinstance(given, Tensor) else given.dtype.kind in "biuf"
    if not real:
        raise TypeError(f"pixels are {given.dtype}, expected real numbers")
    _check_shape(tuple(given.shape), spec)
    if not isinstance(given, Tensor):
        # PyTorch accepts no flipped, foreign-endian or read-only arrays; others are not copied.
        given = torch.from_numpy(np.require(given, np.float32, ["C", "W"]))
    tensor = given.to(torch.float32)
    finite = torch.isfinite(tensor)
    if not finite.all():
        chip, band = (int(index) for index in (~finite).nonzero()[0][:2])
        raise ValueError(
            f"{int((~finite).sum())} pixels are not finite, the first in band {spec.bands[band]} of chip"
            f" {chip}; expected finite numbers (fill or leave out chips with no-data)"
        )
    return tensor


def _check_shape(shape: tuple[int, ...], spec: ModelSpec) -> None:
    """Refuse another number of bands, and window sizes that the model does not take."""
    side, patch = spec.window_size, spec.patch_size
    sized = len(shape) == 4 and shape[1] == len(spec.bands) and shape[2] == shape[3] > 0
    if sized and (shape[3] == side or (spec.other_windows and shape[3] % patch == 0)):
        return
    others = f", or squares of another multiple of {patch} pixels" if spec.other_windows else ""
    raise ValueError(
        f"pixels have shape {shape}, expected (B, {len(spec.bands)}, {side}, {side}){others}:"
        f" chips, bands ({' '.join(spec.bands)}), rows, columns"
    )
