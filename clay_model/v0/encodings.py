"""Position, band-group, place and date as the network wants to see them.

These encodings are computed, not learned: the checkpoint does not hold them. Everything here is a
pure function; what is learned from them (two linear maps) is in `encoder`.
"""

import datetime
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from clay_model.inputs import check_dates, check_lonlat
from clay_model.v0.spec import BAND_GROUPS, GRID

TEMPERATURE = 10_000.0
"""Ratio of the longest to the shortest wavelength of the sine-cosine encodings (Vaswani et al. 2017)."""

FIRST_YEAR, YEARS = 2012, 18
"""Years are an angle: this many of them, counted from this one, go once around the circle."""


def _frequencies(count: int) -> Tensor:
    """(count,) float32 frequencies 1 / TEMPERATURE^(i / (count - 1))."""
    exponents = torch.arange(count, dtype=torch.float32, device="cpu") / (count - 1)
    return 1.0 / TEMPERATURE**exponents


def position_encoding(dim: int) -> Tensor:
    """Where a patch lies in its chip.

    Args:
        dim: Width of the encoding, a multiple of 4.

    Returns:
        (L, dim) float32, patches row by row; a quarter each of sin x, cos x, sin y, cos y.
    """
    steps = torch.arange(GRID, device="cpu")
    row, column = torch.meshgrid(steps, steps, indexing="ij")
    frequencies = _frequencies(dim // 4)
    x = column.reshape(-1, 1) * frequencies
    y = row.reshape(-1, 1) * frequencies
    return torch.cat((x.sin(), x.cos(), y.sin(), y.cos()), dim=1)


def group_encoding(dim: int) -> Tensor:
    """Which band group a token belongs to.

    Args:
        dim: Width of the encoding, even.

    Returns:
        (G, dim) float32; half sine, half cosine.
    """
    angles = torch.arange(len(BAND_GROUPS), device="cpu").reshape(-1, 1) * _frequencies(dim // 2)
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def token_encoding(dim: int) -> Tensor:
    """What is added to each patch token: half its place in the chip, half its band group.

    Args:
        dim: Width of a token, D, a multiple of 8.

    Returns:
        (G, L, D) float32.
    """
    position = position_encoding(dim // 2)  # (L, D/2)
    group = group_encoding(dim // 2)  # (G, D/2)
    groups, patches = len(group), len(position)
    return torch.cat(
        (
            position.expand(groups, patches, -1),
            group.unsqueeze(1).expand(groups, patches, -1),
        ),
        dim=2,
    )


def encode_places(lonlat: ArrayLike) -> Tensor:
    """Longitudes and latitudes as the network takes them.

    The formula is the original's: sin(lat) and atan2(cos(lon), sin(lon)), in that order.

    Args:
        lonlat: (B, 2) degrees in WGS 84, longitude first.

    Returns:
        (B, 2) float32.

    Raises:
        ValueError: If the shape is another, or a longitude is outside ±180 or a latitude outside ±90.
    """
    longitude, latitude = np.radians(check_lonlat(lonlat)).T
    place = np.stack((np.sin(latitude), np.arctan2(np.cos(longitude), np.sin(longitude))), axis=1)
    return torch.from_numpy(place.astype(np.float32))


def encode_dates(dates: Sequence[datetime.date]) -> Tensor:
    """Acquisition dates as the network takes them.

    Year, month and day each become an angle a and then atan2(cos a, sin a), as in the original. Months and
    days go around in 11 and 30 steps, so that the first and the last of a cycle fall together: the
    original's choice, which the weights have learned.

    Args:
        dates: B dates.

    Returns:
        (B, 3) float32: year, month, day.

    Raises:
        TypeError: If an element is no date.
    """
    check_dates(dates)
    turns = np.array(
        [((d.year - FIRST_YEAR) / YEARS, (d.month - 1) / 11, (d.day - 1) / 30) for d in dates],
        dtype=np.float64,
    ).reshape(-1, 3)
    angles = 2 * math.pi * turns
    return torch.from_numpy(np.arctan2(np.cos(angles), np.sin(angles)).astype(np.float32))
