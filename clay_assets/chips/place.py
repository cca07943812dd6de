"""Where a chip is on Earth: the centre of each window, which the network is told, and its footprint."""

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
    """Where a window of a chip is.

    Attributes:
        lonlat: Of the centre, degrees in WGS 84, longitude first.
        footprint: Bounding box as a polygon in OGC:CRS84, reprojected corner by corner; WKB.
    """

    lonlat: tuple[float, float]
    footprint: bytes


def locate(header: Header, window_size: int) -> tuple[Place, ...]:
    """The places of a chip's windows, row by row from the top.

    Args:
        header: Of the chip; its sides are whole numbers of windows.
        window_size: Pixels along a window's side; the chip's own for the chip as a whole.

    Raises:
        ChipRejected: With reason `crs`, if the bounds have no place on Earth.
    """
    return tuple(
        _locate(header, row, column, window_size)
        for row in range(0, header.height, window_size)
        for column in range(0, header.width, window_size)
    )


def _locate(header: Header, row: int, column: int, size: int) -> Place:
    """Reproject a window's bounds.

    Only the corners are: the sides of the footprint are straight in degrees, as the published files of the
    original have them. A chip across the antimeridian therefore gets a footprint around the Earth, which is
    cut where it is published (`antimeridian`). Its centre is where it should be.
    """
    columns = column + np.array([0, 0, size, size])
    rows = row + np.array([0, size, 0, size])
    a, b, c, d, e, f = tuple(header.transform)[:6]
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    west, east, south, north = x.min(), x.max(), y.min(), y.max()
    # The corners in the order of `shapely.box`, then the centre.
    x = np.array([east, east, west, west, (west + east) / 2])
    y = np.array([south, north, north, south, (south + north) / 2])
    try:
        lon, lat = _to_crs84.transformer(header.crs).transform(x, y)
    except ProjError as error:  # of which pyproj's CRSError is one
        raise ChipRejected(
            "crs", f"has a coordinate reference system without a way to WGS 84: {error}"
        ) from error
    bounds = ", ".join(f"{value:g}" for value in (west, south, east, north))
    if not (np.abs(lon) <= 180).all() or not (np.abs(lat) <= 90).all():
        raise ChipRejected(
            "crs", f"has bounds {bounds}, expected ones that its reference system places on Earth"
        )
    footprint = shapely.polygons(shapely.linearrings(np.stack([lon[:4], lat[:4]], axis=1)))
    if not shapely.area(footprint):  # pixels so small that the corners are one point
        raise ChipRejected("crs", f"has bounds {bounds}, expected ones that span an area")
    return Place((float(lon[4]), float(lat[4])), shapely.to_wkb(footprint))


class _Transformers(threading.local):
    """One transformer for each CRS and thread: making one takes tens of milliseconds, none may be shared."""

    def __init__(self) -> None:
        self.transformer = functools.lru_cache(maxsize=64)(self._make)

    @staticmethod
    def _make(crs: str) -> pyproj.Transformer:
        return pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(crs), "OGC:CRS84", always_xy=True)


_to_crs84 = _Transformers()
