"""The bounds of a tile on the ground, from its MGRS code alone.

Zone and latitude band give the UTM zone; two letters give the 100 km square in it. Row letters repeat every
2,000 km; the band determines which one applies. Zones of irregular shape (31V, 32V, Svalbard) need no
exception: the code has the zone in which the tile is gridded.
"""

import functools

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

BANDS = "CDEFGHJKLMNPQRSTUVWX"  # of latitude, from 80° S northwards, 8° each; the last has 12°
COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")  # from 100 km easting on; repeat every three zones
ROWS = "ABCDEFGHJKLMNPQRSTUV"  # northwards; at the equator, odd zones begin with A and even zones with F
SQUARE = 100_000  # metres
CYCLE = len(ROWS) * SQUARE  # metres after which the row letters repeat
TILE = 109_800  # metres: from the square's north-west corner 9.8 km into its neighbours


def utm_zone(tile: str) -> pyproj.CRS:
    """Return the UTM zone in which a tile is gridded."""
    return pyproj.CRS.from_epsg((32600 if tile[2] >= "N" else 32700) + int(tile[:2]))


def tile_bounds(tile: str) -> tuple[float, float, float, float]:
    """Return west, south, east, north of a Sentinel-2 tile such as 27WXN, in metres of its UTM zone.

    Sentinel-2 snaps tiles to multiples of 60 m: the real bounds are up to 60 m away. Raises ValueError if the
    zone has no such column.
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
    latitude = -80 + 8 * BANDS.index(band) + (6 if band == "X" else 4)
    return float(_to_utm(f"31{band}").transform(3, latitude)[1])


@functools.lru_cache(maxsize=8)
def _to_utm(zone: str) -> pyproj.Transformer:
    """Return a transformer to a zone such as 31X. Threads may share it: pyproj makes one for each in 4 ms."""
    return pyproj.Transformer.from_crs("OGC:CRS84", utm_zone(zone), always_xy=True)


def overhang(tile: str, footprints: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return how far footprints (N,), shapely polygons in OGC:CRS84, extend beyond their tile: (N,) metres.

    0 for a footprint inside, infinity for one outside the domain of the tile's UTM zone. Raises ValueError as
    `tile_bounds` does.
    """
    west, south, east, north = tile_bounds(tile)
    corners, owners = shapely.get_coordinates(footprints, return_index=True)
    x, y = _to_utm(tile[:3]).transform(corners[:, 0], corners[:, 1])
    beyond = np.maximum.reduce([west - x, x - east, south - y, y - north, np.zeros(len(x))])
    furthest = np.zeros(len(footprints))
    np.maximum.at(furthest, owners, np.where(np.isfinite(beyond), beyond, np.inf))
    return furthest
