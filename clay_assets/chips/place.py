"""Locates a chip on Earth: the centre of each window, which the network is given, and its footprint.

Uses Python's floats: NumPy and Shapely took four times as long for five points (55 us), with the GIL held.
"""

import functools
import struct
import threading
from dataclasses import dataclass

import pyproj
from pyproj.exceptions import ProjError

from clay_assets.chips.geotiff import Header
from clay_assets.chips.rejection import ChipRejected

POLYGON = struct.Struct("<BIII10d")
"""WKB of a polygon with one ring of five points: byte order, type, rings, points, coordinates."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Place:
    """Location of a window of a chip.

    Attributes:
        lonlat: Centre, degrees in WGS 84, longitude first.
        footprint: Bounding box as a polygon in OGC:CRS84, reprojected corner by corner; WKB.
    """

    lonlat: tuple[float, float]
    footprint: bytes


def locate(header: Header, window_size: int) -> tuple[Place, ...]:
    """Reproject the bounds of all windows of a chip in one call.

    Only the corners are reprojected: the sides of a footprint are straight in degrees, as in the files that
    Clay published. The footprint of a chip across the antimeridian therefore goes around the Earth; it is cut
    when it is published (`antimeridian`). Its centre is correct.

    Args:
        header: Header of the chip; its sides are whole numbers of windows.
        window_size: Pixels along a window's side; the chip's own size for one window.

    Returns:
        Places row by row from the top.

    Raises:
        ChipRejected: With reason `crs`, if the bounds cannot be located on Earth.
    """
    boxes = [
        _bounds(header, row, column, window_size)
        for row in range(0, header.height, window_size)
        for column in range(0, header.width, window_size)
    ]
    # For each window the corners in the order of `shapely.box`, then the centre.
    x = [x for west, _, east, _ in boxes for x in (east, east, west, west, (west + east) / 2)]
    y = [y for _, south, _, north in boxes for y in (south, north, north, south, (south + north) / 2)]
    try:
        lon, lat = _to_crs84.transformer(header.crs).transform(x, y)
    except ProjError as error:  # the base class of pyproj's CRSError
        raise ChipRejected(
            "crs", f"has a coordinate reference system that cannot be transformed to WGS 84: {error}"
        ) from error
    return tuple(
        _place(box, lon[start : start + 5], lat[start : start + 5])
        for box, start in zip(boxes, range(0, len(lon), 5), strict=True)
    )


def _bounds(header: Header, row: int, column: int, size: int) -> Box:
    """Return west, south, east and north of a window in the chip's reference system."""
    a, b, c, d, e, f = tuple(header.transform)[:6]
    corners = [(column, row), (column + size, row), (column, row + size), (column + size, row + size)]
    x = [a * column + b * row + c for column, row in corners]
    y = [d * column + e * row + f for column, row in corners]
    return min(x), min(y), max(x), max(y)


def _place(box: Box, lon: list[float], lat: list[float]) -> Place:
    """Return the place of a window, from the degrees of its four corners and its centre."""
    expected = ""
    if not all(-180 <= degrees <= 180 for degrees in lon) or not all(-90 <= degrees <= 90 for degrees in lat):
        expected = "ones that its reference system places on Earth"
    elif not sum((lon[i] - lon[0]) * (lat[i - 1] - lat[(i + 1) % 4]) for i in (1, 2, 3)):  # twice the area
        expected = "ones that span an area"  # the pixels are so small that the corners are one point
    if expected:
        bounds = ", ".join(f"{value:g}" for value in box)
        raise ChipRejected("crs", f"has bounds {bounds}, expected {expected}")
    ring = [degrees for i in (0, 1, 2, 3, 0) for degrees in (lon[i], lat[i])]
    return Place((lon[4], lat[4]), POLYGON.pack(1, 3, 1, 5, *ring))


class _Transformers(threading.local):
    """One transformer per CRS and thread: creating one takes tens of milliseconds, and sharing is unsafe."""

    def __init__(self) -> None:
        self.transformer = functools.lru_cache(maxsize=64)(self._make)

    @staticmethod
    def _make(crs: str) -> pyproj.Transformer:
        return pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(crs), "OGC:CRS84", always_xy=True)


_to_crs84 = _Transformers()
