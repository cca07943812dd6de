"""The content of the bucket: forty tiles of a few chips each, three of them faulty.

The chips are valid 13-band GeoTIFFs of 512 x 512 pixels with a simple pattern, which compresses to some
kilobytes.
"""

import numpy as np

from clay_assets.storage import Store
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels

ZONE = "EPSG:32633"
COLUMNS = {"U": 300_000, "V": 400_000, "W": 500_000, "X": 600_000}
"""Column letter in UTM zone 33 → easting of the tile's west edge, metres."""

ROWS = {"TG": 46, "TH": 47, "UQ": 54, "UR": 55, "US": 56, "UT": 57, "UU": 58, "UV": 59, "UA": 60, "UB": 61}
"""Latitude band and row letter → northing of the tile's south edge, 100 km."""

TILES = tuple(sorted(f"33{row[0]}{column}{row[1]}" for row in ROWS for column in COLUMNS))
"""Forty tiles of UTM zone 33, from Tuscany to Denmark."""

EMPTY = TILES[5]
"""Has no chips."""

BROKEN = TILES[16]
"""Has only chips that are not GeoTIFFs."""

MIXED = TILES[27]
"""Has one bad chip among good ones."""

RENEWED = (TILES[2], TILES[20], TILES[33])
"""Tiles that each get a new chip after the backfills."""

GOOD = tuple(tile for tile in TILES if tile not in (EMPTY, BROKEN))
"""Tiles that can be published."""

DATES = ("2020-06-15", "2020-09-08")
CHIPS = 2
"""Chips of a tile on each date."""


def write_chips(store: Store, tiles: tuple[str, ...] = TILES) -> None:
    """Write the chips of tiles into a bucket."""
    for tile in tiles:
        for date in DATES if tile != EMPTY else ():
            for number in range(1, CHIPS + 1):
                bad = tile == BROKEN or (tile == MIXED and (number, date) == (2, DATES[0]))
                write_chip(store, tile, date, number, b"no GeoTIFF at all" if bad else None)


def write_chip(store: Store, tile: str, date: str, number: int, content: bytes | None = None) -> None:
    """Write one chip.

    Args:
        store: The bucket.
        tile: MGRS code.
        date: Acquisition date.
        number: Number of the chip in its tile and date.
        content: The file; None: a good chip, different from all others.
    """
    if content is None:
        west = COLUMNS[tile[3]] + 5_120 * number
        north = ROWS[tile[2] + tile[4]] * 100_000 + 60_000
        strength = 1 + 0.3 * number + 0.7 * DATES.index(date)
        pixels = chip_pixels() * np.float32(strength) + np.float32(sum(map(ord, tile)) % 97)
        content = chip_bytes(pixels, crs=ZONE, origin=(west, north), date=date)
    store.write(f"{tile}/{date}/{chip_name(number, tile=tile, date=date)}", content)
