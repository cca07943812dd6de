"""Position, band group, place and date as inputs of the network.

The checkpoint does not have these encodings: they are computed. The learned maps of them (two linear layers)
are in `encoder`.
"""

import datetime
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from clay_model.inputs import check_dates, check_lonlat
from clay_model.sincos import TEMPERATURE, encode_grid, encode_values, exponents
from clay_model.v0.spec import BAND_GROUPS, GRID

FIRST_YEAR, YEARS = 2012, 18
"""A year is an angle: this many years, from the first one on, go once around the circle."""


def position_encoding(dim: int) -> Tensor:
    """Encode each patch's position in its chip.

    Args:
        dim: Width of the encoding, a multiple of 4.

    Returns:
        (L, dim) float32, patches row by row; a quarter each of sin x, cos x, sin y, cos y.
    """
    return encode_grid(GRID, 1.0 / TEMPERATURE ** exponents(dim // 4))


def group_encoding(dim: int) -> Tensor:
    """Encode the number of each band group.

    Args:
        dim: Width of the encoding, even.

    Returns:
        (G, dim) float32; half sine, half cosine.
    """
    return encode_values(torch.arange(len(BAND_GROUPS), device="cpu"), dim)


def token_encoding(dim: int) -> Tensor:
    """Return the encoding added to each patch token: half its position, half its band group.

    Args:
        dim: Width of a token, D, a multiple of 8.

    Returns:
        (G, L, D) float32.
    """
    position = position_encoding(dim // 2).unsqueeze(0).expand(len(BAND_GROUPS), -1, -1)  # (G, L, D/2)
    group = group_encoding(dim // 2).unsqueeze(1).expand_as(position)  # (G, L, D/2)
    return torch.cat((position, group), dim=2)


def encode_places(lonlat: ArrayLike) -> Tensor:
    """Encode places by the original's formula: sin(lat) and atan2(cos(lon), sin(lon)), in that order.

    Args:
        lonlat: (B, 2) degrees in WGS 84, longitude first.

    Returns:
        (B, 2) float32.

    Raises:
        ValueError: If the shape is wrong, or a longitude is outside ±180 or a latitude outside ±90.
    """
    longitude, latitude = np.radians(check_lonlat(lonlat)).T
    place = np.stack((np.sin(latitude), np.arctan2(np.cos(longitude), np.sin(longitude))), axis=1)
    return torch.from_numpy(place.astype(np.float32))


def encode_dates(dates: Sequence[datetime.date]) -> Tensor:
    """Encode acquisition dates.

    Year, month and day each become an angle a and then atan2(cos a, sin a), as in the original. Months and
    days go around in 11 and 30 steps, so that the first and the last of a cycle coincide: the original's
    choice, which the weights have learned.

    Args:
        dates: B dates.

    Returns:
        (B, 3) float32: year, month, day.

    Raises:
        TypeError: If an element is not a date.
    """
    check_dates(dates)
    turns = np.array(
        [((d.year - FIRST_YEAR) / YEARS, (d.month - 1) / 11, (d.day - 1) / 30) for d in dates],
        dtype=np.float64,
    ).reshape(-1, 3)
    angles = 2 * math.pi * turns
    return torch.from_numpy(np.arctan2(np.cos(angles), np.sin(angles)).astype(np.float32))
