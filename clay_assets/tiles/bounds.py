"""Where a tile lies on the ground, from its MGRS code alone.

Zone and latitude band give the UTM zone; two letters give the 100 km square within it, whose rows repeat
every 2,000 km, so that the band decides which one is meant. Zones of odd shape (31V, 32V, Svalbard) need no
exception: the code names the zone in which the tile is gridded.
"""

import functools
import threading

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

BANDS = "CDEFGHJKLMNPQRSTUVWX"
"""Latitude bands from 80° south, 8° each; the last is 12°."""

COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
"""Letters of the squares from 100 km easting, in zones 1, 2, 3 and every third one after."""

ROWS = "ABCDEFGHJKLMNPQRSTUV"
"""Letters of the squares northwards; even zones begin with F at the equator."""

SQUARE = 100_000
"""Side of a square in metres."""

TILE = 109_800
"""Side of a Sentinel-2 tile in metres: from the square's north-west corner 9.8 km into its neighbours."""

CYCLE = len(ROWS) * SQUARE
"""After so many metres the row letters begin again."""

Bounds = tuple[float, float, float, float]
"""West, south, east, north in metres of a UTM zone."""


def utm_zone(tile: str) -> pyproj.CRS:
    """The UTM zone that a tile is gridded in."""
    return pyproj.CRS.from_epsg((32600 if tile[2] >= "N" else 32700) + int(tile[:2]))


def tile_bounds(tile: str) -> Bounds:
    """The Sentinel-2 tile of this code, in metres of its UTM zone.

    Tiles are snapped to multiples of 60 m, so that the real one may lie up to 60 m away.

    Args:
        tile: MGRS code such as 27WXN.

    Raises:
        ValueError: If there is no such column of squares in that zone.
    """
    zone, band, column, row = int(tile[:2]), tile[2], tile[3], tile[4]
    columns = COLUMNS[(zone - 1) % 3]
    if column not in columns:
        raise ValueError(f"{tile} names no tile: zone {zone} has the columns {columns}, got {column}")
    west = (columns.index(column) + 1) * SQUARE
    south = (ROWS.index(row) - (0 if zone % 2 else 5)) % len(ROWS) * SQUARE
    south += round((_band_centre(band) - (south + SQUARE / 2)) / CYCLE) * CYCLE
    north = south + SQUARE
    return west, north - TILE, west + TILE, north


@functools.cache
def _band_centre(band: str) -> float:
    """Northing of the middle of a latitude band, at its zone's central meridian."""
    index = BANDS.index(band)
    latitude = -80 + 8 * index + (6 if band == "X" else 4)
    return float(_to_utm.transformer(f"31{band}").transform(3, latitude)[1])


class _Transformers(threading.local):
    """One transformer for each zone and thread: making one takes 4 ms, none may be shared."""

    def __init__(self) -> None:
        self.transformer = functools.lru_cache(maxsize=8)(self._make)

    @staticmethod
    def _make(zone: str) -> pyproj.Transformer:
        return pyproj.Transformer.from_crs("OGC:CRS84", utm_zone(zone), always_xy=True)


_to_utm = _Transformers()


def overhang(tile: str, footprints: NDArray[np.object_]) -> NDArray[np.float64]:
    """How far footprints reach out of their tile.

    Args:
        tile: MGRS code.
        footprints: (N,) shapely polygons in OGC:CRS84.

    Returns:
        (N,) metres; 0 for a footprint inside, infinity for one that the tile's zone cannot show.

    Raises:
        ValueError: If the code names no tile.
    """
    west, south, east, north = tile_bounds(tile)
    corners, owners = shapely.get_coordinates(footprints, return_index=True)
    x, y = _to_utm.transformer(tile[:3]).transform(corners[:, 0], corners[:, 1])
    beyond = np.maximum.reduce([west - x, x - east, south - y, y - north, np.zeros(len(x))])
    furthest = np.zeros(len(footprints))
    np.maximum.at(furthest, owners, np.where(np.isfinite(beyond), beyond, np.inf))
    return furthest
