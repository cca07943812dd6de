"""Position, place and time as inputs of the network. The checkpoint does not have them: they are computed."""

import datetime
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from clay_model.inputs import check_dates, check_lonlat
from clay_model.sincos import TEMPERATURE, encode_grid, exponents
from clay_model.v15.spec import PIXEL_METRES

WEEKS, HOURS = 52, 24
"""Steps of a year and of a day around the circle; week 53 coincides with week 1."""

OVERPASS_HOUR = 10.5
"""Mean local solar time at which Sentinel-2 crosses the equator southwards, hours."""


def position_encoding(grid: int, dim: int) -> Tensor:
    """Encode each patch's position in its window.

    The exponent has an extra factor of 2 / dim, so that all channels have nearly the same frequency: the
    original's formula, which the weights have learned.

    Args:
        grid: Patches along the window's side.
        dim: Width of the encoding, a multiple of 4 from 8.

    Returns:
        (grid², dim) float32, patches row by row; a quarter each of sin x, cos x, sin y, cos y.
    """
    return encode_grid(grid, 1.0 / TEMPERATURE ** (2 * exponents(dim // 4) / dim) * PIXEL_METRES)


def encode_places(lonlat: ArrayLike) -> Tensor:
    """Encode places.

    Args:
        lonlat: (B, 2) degrees in WGS 84, longitude first.

    Returns:
        (B, 4) float32: sine and cosine of the latitude, sine and cosine of the longitude.

    Raises:
        ValueError: If the shape is wrong, or a longitude is outside ±180 or a latitude outside ±90.
    """
    longitude, latitude = np.radians(check_lonlat(lonlat)).T
    parts = (np.sin(latitude), np.cos(latitude), np.sin(longitude), np.cos(longitude))
    return torch.from_numpy(np.stack(parts, axis=1).astype(np.float32))


def encode_times(times: Sequence[datetime.datetime]) -> Tensor:
    """Encode acquisition times: the ISO week, and the hour without its minutes.

    Args:
        times: B times; those without a time zone are in UTC.

    Returns:
        (B, 4) float32: sine and cosine of the week, sine and cosine of the hour.

    Raises:
        TypeError: If an element is not a `datetime`; see `with_time_of_day` for dates.
    """
    for row, time in enumerate(times):
        if not isinstance(time, datetime.datetime):
            raise TypeError(f"times[{row}] is {time!r}, expected a datetime.datetime in UTC")
    moments = [time if time.tzinfo is None else time.astimezone(datetime.UTC) for time in times]
    turns = np.array(
        [(moment.isocalendar().week / WEEKS, moment.hour / HOURS) for moment in moments], dtype=np.float64
    ).reshape(-1, 2)
    week, hour = 2 * np.pi * turns.T
    parts = (np.sin(week), np.cos(week), np.sin(hour), np.cos(hour))
    return torch.from_numpy(np.stack(parts, axis=1).astype(np.float32))


def overpass(date: datetime.date, longitude: float) -> datetime.datetime:
    """Estimate the time of a Sentinel-2 image from its date and longitude.

    It passes at 10:30 mean local solar time, which is four minutes earlier in UTC for each degree to the
    east. The date is in UTC, as in the names of Sentinel-2's products, and stays the same.

    Args:
        date: Date in UTC.
        longitude: Degrees, east positive.

    Returns:
        A time of that date, in UTC, to the second.
    """
    seconds = round((OVERPASS_HOUR - longitude / 15) * 3600) % 86_400
    midnight = datetime.datetime.combine(date, datetime.time(), datetime.UTC)
    return midnight + datetime.timedelta(seconds=seconds)


def with_time_of_day(dates: Sequence[datetime.date], lonlat: ArrayLike) -> list[datetime.datetime]:
    """Return times; a date without a time of day gets that of the overpass.

    Args:
        dates: B dates or `datetime`s.
        lonlat: (B, 2) degrees in WGS 84, longitude first.

    Raises:
        TypeError: If an element is not a date.
        ValueError: If a coordinate is out of range, or there are not as many places as dates.
    """
    check_dates(dates)
    places = check_lonlat(lonlat)
    if len(places) != len(dates):
        raise ValueError(f"lonlat has {len(places)} rows for {len(dates)} dates, expected one row a date")
    return [
        date if isinstance(date, datetime.datetime) else overpass(date, float(longitude))
        for date, (longitude, _) in zip(dates, places, strict=True)
    ]
