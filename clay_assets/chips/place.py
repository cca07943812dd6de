"""Locates a chip on Earth: the centre of each window, which the network is given, and its footprint."""

import functools
import threading
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from pyproj.exceptions import ProjError

from clay_assets.chips.geotiff import Header
from clay_assets.chips.rejection import ChipRejected


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
    """Reproject the bounds of a chip's windows, all in one call.

    Only the corners are reprojected: the sides of a footprint are straight in degrees, as in the files that
    Clay published. The footprint of a chip across the antimeridian therefore goes around the Earth; it is cut
    when it is published (`antimeridian`). Its centre is correct.

    Args:
        header: Of the chip; its sides are whole numbers of windows.
        window_size: Pixels along a window's side; the chip's own for the chip as a whole.

    Returns:
        Places row by row from the top.

    Raises:
        ChipRejected: With reason `crs`, if the bounds have no place on Earth.
    """
    boxes = [
        _bounds(header, row, column, window_size)
        for row in range(0, header.height, window_size)
        for column in range(0, header.width, window_size)
    ]
    # Of each window the corners in the order of `shapely.box`, then the centre.
    x = [x for west, _, east, _ in boxes for x in (east, east, west, west, (west + east) / 2)]
    y = [y for _, south, _, north in boxes for y in (south, north, north, south, (south + north) / 2)]
    try:
        lon, lat = _to_crs84.transformer(header.crs).transform(np.array(x), np.array(y))
    except ProjError as error:  # the base class of pyproj's CRSError
        raise ChipRejected(
            "crs", f"has a coordinate reference system that cannot be transformed to WGS 84: {error}"
        ) from error
    points = np.stack([lon, lat], axis=1).reshape(-1, 5, 2)
    for box, on_earth in zip(boxes, (np.abs(points) <= (180, 90)).all(axis=(1, 2)), strict=True):
        if not on_earth:
            raise _refusal(box, "ones that its reference system places on Earth")
    polygons = shapely.polygons(points[:, :4])
    for box, area in zip(boxes, shapely.area(polygons), strict=True):
        if not area:  # pixels so small that the corners are one point
            raise _refusal(box, "ones that span an area")
    return tuple(
        Place((lon, lat), footprint)
        for (lon, lat), footprint in zip(points[:, 4].tolist(), shapely.to_wkb(polygons), strict=True)
    )


def _bounds(header: Header, row: int, column: int, size: int) -> tuple[float, float, float, float]:
    """West, south, east and north of a window in the chip's reference system.

    In Python's floats: NumPy's arrays of four take twice as long, and hold the GIL.
    """
    a, b, c, d, e, f = tuple(header.transform)[:6]
    corners = [(column, row), (column + size, row), (column, row + size), (column + size, row + size)]
    x = [a * column + b * row + c for column, row in corners]
    y = [d * column + e * row + f for column, row in corners]
    return min(x), min(y), max(x), max(y)


def _refusal(bounds: tuple[float, ...], expected: str) -> ChipRejected:
    got = ", ".join(f"{value:g}" for value in bounds)
    return ChipRejected("crs", f"has bounds {got}, expected {expected}")


class _Transformers(threading.local):
    """One transformer for each CRS and thread: creating one takes tens of milliseconds, sharing is unsafe."""

    def __init__(self) -> None:
        self.transformer = functools.lru_cache(maxsize=64)(self._make)

    @staticmethod
    def _make(crs: str) -> pyproj.Transformer:
        return pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(crs), "OGC:CRS84", always_xy=True)


_to_crs84 = _Transformers()
