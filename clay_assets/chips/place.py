"""Locates chips on Earth: the centre of each window, which the network is given, footprints and bounds.

Only the corners are reprojected: the sides of a footprint are straight in degrees, as in the files that Clay
published. A chip on both sides of 180 degrees therefore gets a polygon around the Earth. Results keep that
polygon, whose corners are the chip's; published files have the cut polygon (RFC 7946, section 3.1.9).

Footprints are polygons in OGC:CRS84; bounds are west, south, east, north.
"""

import functools
import struct
from itertools import product
from typing import NamedTuple

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from clay_assets.chips.geotiff import Header
from clay_assets.chips.rejection import ChipRejected

# WKB of a polygon with one ring of five points: byte order, type, rings, points, coordinates.
POLYGON = struct.Struct("<BIII10d")

HALF = 180.0  # degrees: a wider polygon crosses the antimeridian, because no chip is this wide

Bounds = tuple[float, float, float, float]


class Place(NamedTuple):
    """Location of a window of a chip."""

    lonlat: tuple[float, float]  # centre, degrees in WGS 84, longitude first
    footprint: bytes  # WKB of its bounding box


def locate(header: Header, window_size: int) -> tuple[Place, ...]:
    """Reproject the bounds of all windows of a chip in one call; return their places row by row.

    Raises `ChipRejected` with reason `crs` if they cannot be located on Earth. `window_size` is in pixels;
    the chip's sides are multiples of it. Uses Python's floats: NumPy and Shapely took four times as long for
    five points (55 us), with the GIL held.
    """
    a, b, c, d, e, f = tuple(header.transform)[:6]
    boxes = []
    for top, left in product(range(0, header.height, window_size), range(0, header.width, window_size)):
        corners = [*product((top, top + window_size), (left, left + window_size))]
        x = [a * column + b * row + c for row, column in corners]
        y = [d * column + e * row + f for row, column in corners]
        boxes.append((min(x), min(y), max(x), max(y)))
    # For each window the corners in the order of `shapely.box`, then the centre.
    x = [x for west, _, east, _ in boxes for x in (east, east, west, west, (west + east) / 2)]
    y = [y for _, south, _, north in boxes for y in (south, north, north, south, (south + north) / 2)]
    try:
        lon, lat = _to_crs84(header.crs).transform(x, y)
    except ProjError as error:  # the base class of pyproj's CRSError
        raise ChipRejected(
            "crs", f"has a coordinate reference system that cannot be transformed to WGS 84: {error}"
        ) from error
    return tuple(
        _place(box, lon[start : start + 5], lat[start : start + 5])
        for box, start in zip(boxes, range(0, len(lon), 5), strict=True)
    )


@functools.lru_cache(maxsize=64)
def _to_crs84(crs: str) -> pyproj.Transformer:
    """Return a transformer. Threads may share it: pyproj makes one for each, in tens of milliseconds."""
    return pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(crs), "OGC:CRS84", always_xy=True)


def _place(box: Bounds, lon: list[float], lat: list[float]) -> Place:
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


def cut_at_antimeridian(footprints: NDArray[np.object_]) -> NDArray[np.object_]:
    """Cut the footprints (N,) that cross the antimeridian; the others are returned unchanged.

    A polygon (without holes) that crosses becomes a MultiPolygon of its parts west and east of 180 degrees,
    both counterclockwise; a polygon if it only touches. One around a pole, which no tile reaches, is
    returned unchanged.
    """
    west, _, east, _ = shapely.bounds(footprints).T
    cut = footprints.copy()
    for index in np.flatnonzero(east - west > HALF):
        cut[index] = _cut(footprints[index])
    return cut


def _cut(polygon: shapely.Polygon) -> shapely.Geometry:
    ring = shapely.get_coordinates(polygon)
    ring[:, 0] += 360.0 * (ring[:, 0] < 0)
    whole = shapely.polygons(ring)
    if np.ptp(ring[:, 0]) > HALF or not (whole.is_valid and whole.area):
        return polygon
    before, beyond = (shapely.clip_by_rect(whole, west, -90, west + HALF, 90) for west in (0, HALF))
    beyond = shapely.transform(beyond, lambda degrees: degrees - [360, 0])
    parts = [shapely.geometry.polygon.orient(part) for part in (before, beyond) if part.area]
    return shapely.MultiPolygon(parts) if len(parts) > 1 else parts[0]


def joined_bounds(boxes: NDArray[np.float64]) -> Bounds:
    """Return the bounds of boxes (N, 4), degrees, by RFC 7946 (section 5): west > east across 180 degrees.

    No box may cross the antimeridian by itself.
    """
    (west, south), (east, north) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    if east - west > HALF:
        positive = boxes[:, 0] >= 0
        if positive.any() and (~positive).any():
            from_west, to_east = boxes[positive, 0].min(), boxes[~positive, 2].max()
            if from_west > to_east:  # else the boxes go all around the Earth
                west, east = from_west, to_east
    return float(west), float(south), float(east), float(north)


def bounds_of(footprints: NDArray[np.object_]) -> Bounds:
    """Return the `joined_bounds` of footprints (N,), cut or not, at least one."""
    return joined_bounds(shapely.bounds(shapely.get_parts(cut_at_antimeridian(footprints))))
