"""Cuts footprints at the antimeridian, and computes bounds across it.

`place` reprojects only the corners, so a chip on both sides of 180 degrees gets a polygon around the Earth.
Results keep that polygon, whose corners are the chip's; published files have the cut polygon (RFC 7946,
section 3.1.9).
"""

import numpy as np
import shapely
from numpy.typing import NDArray

HALF = 180.0
"""Degrees: a wider polygon crosses the antimeridian, because no chip is this wide."""


def cut_at_antimeridian(footprints: NDArray[np.object_]) -> NDArray[np.object_]:
    """Cut the footprints that cross the antimeridian; the others are returned unchanged.

    Args:
        footprints: (N,) shapely polygons in OGC:CRS84 without holes.

    Returns:
        (N,): for a polygon that crosses, a MultiPolygon of its parts west and east of 180 degrees, both
        counterclockwise; a polygon if it only touches. A polygon around a pole, which no tile reaches, is
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


def joined_bounds(boxes: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return the bounds of many boxes by RFC 7946 (section 5): west > east across the antimeridian.

    Args:
        boxes: (N, 4) west, south, east, north, degrees; none crosses the antimeridian by itself.
    """
    (west, south), (east, north) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    if east - west > HALF:
        positive = boxes[:, 0] >= 0
        if positive.any() and (~positive).any():
            from_west, to_east = boxes[positive, 0].min(), boxes[~positive, 2].max()
            if from_west > to_east:  # else the boxes go all around the Earth
                west, east = from_west, to_east
    return float(west), float(south), float(east), float(north)


def bounds_of(footprints: NDArray[np.object_]) -> tuple[float, float, float, float]:
    """Return west, south, east, north of footprints, degrees; west > east across the antimeridian.

    Args:
        footprints: (N,) shapely polygons in OGC:CRS84, cut or not; at least one.
    """
    return joined_bounds(shapely.bounds(shapely.get_parts(cut_at_antimeridian(footprints))))
