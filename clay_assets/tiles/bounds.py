"""The bounds of a tile on the ground, from its MGRS code alone.

Zone and latitude band give the UTM zone; two letters give the 100 km square in it. Row letters repeat every
2,000 km; the band determines which one applies. Zones of irregular shape (31V, 32V, Svalbard) need no
exception: the code has the zone in which the tile is gridded.
"""

import functools
import threading

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

BANDS = "CDEFGHJKLMNPQRSTUVWX"
"""Latitude bands from 80° S northwards, 8° each; the last has 12°."""

COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
"""Column letters from 100 km easting on, in zones 1, 2, 3; they repeat every three zones."""

ROWS = "ABCDEFGHJKLMNPQRSTUV"
"""Row letters northwards; at the equator, odd zones begin with A and even zones with F."""

SQUARE = 100_000
"""Side of a square in metres."""

TILE = 109_800
"""Side of a Sentinel-2 tile in metres: from the square's north-west corner 9.8 km into its neighbours."""

CYCLE = len(ROWS) * SQUARE
"""Metres after which the row letters repeat."""

Bounds = tuple[float, float, float, float]
"""West, south, east, north in metres of a UTM zone."""


def utm_zone(tile: str) -> pyproj.CRS:
    """Return the UTM zone in which a tile is gridded."""
    return pyproj.CRS.from_epsg((32600 if tile[2] >= "N" else 32700) + int(tile[:2]))


def tile_bounds(tile: str) -> Bounds:
    """Return the bounds of a Sentinel-2 tile in metres of its UTM zone.

    Sentinel-2 snaps tiles to multiples of 60 m: the real bounds are up to 60 m away.

    Args:
        tile: MGRS code such as 27WXN.

    Raises:
        ValueError: If the zone has no such column.
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
    """Return the northing of the middle of a latitude band, at the central meridian."""
    index = BANDS.index(band)
    latitude = -80 + 8 * index + (6 if band == "X" else 4)
    return float(_to_utm.transformer(f"31{band}").transform(3, latitude)[1])


class _Transformers(threading.local):
    """One transformer per zone and thread: creating one takes 4 ms, and threads must not share them."""

    def __init__(self) -> None:
        self.transformer = functools.lru_cache(maxsize=8)(self._make)

    @staticmethod
    def _make(zone: str) -> pyproj.Transformer:
        return pyproj.Transformer.from_crs("OGC:CRS84", utm_zone(zone), always_xy=True)


_to_utm = _Transformers()


def overhang(tile: str, footprints: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return how far footprints extend beyond their tile.

    Args:
        tile: MGRS code.
        footprints: (N,) shapely polygons in OGC:CRS84.

    Returns:
        (N,) metres; 0 for a footprint inside, infinity for one outside the domain of the tile's UTM zone.

    Raises:
        ValueError: If the zone has no such column.
    """
    west, south, east, north = tile_bounds(tile)
    corners, owners = shapely.get_coordinates(footprints, return_index=True)
    x, y = _to_utm.transformer(tile[:3]).transform(corners[:, 0], corners[:, 1])
    beyond = np.maximum.reduce([west - x, x - east, south - y, y - north, np.zeros(len(x))])
    furthest = np.zeros(len(footprints))
    np.maximum.at(furthest, owners, np.where(np.isfinite(beyond), beyond, np.inf))
    return furthest
