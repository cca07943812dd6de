"""What lies in the rehearsal's bucket: forty tiles of a few chips, three of them out of the ordinary.

The chips are real 13-band GeoTIFFs of 512 x 512 pixels whose values compress to some kilobytes; they look
like nothing. What they look like matters to the demo, not here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clay_assets.storage import Store
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels

ZONE = "EPSG:32633"
COLUMNS = {"U": 300_000, "V": 400_000, "W": 500_000, "X": 600_000}
"""Column letters of UTM zone 33 → easting of the tile's west edge, metres."""

ROWS = {"TG": 46, "TH": 47, "UQ": 54, "UR": 55, "US": 56, "UT": 57, "UU": 58, "UV": 59, "UA": 60, "UB": 61}
"""Latitude band and row letter → northing of the tile's south edge, 100 km."""

DATES = ("2020-06-15", "2020-09-08")
CHIPS = 2
"""Chips of a tile on each date."""


@dataclass(frozen=True)
class Cast:
    """The tiles, by the part they play.

    Attributes:
        tiles: All forty, sorted.
        empty: Has no chips.
        broken: Has chips, none of which can be used.
        mixed: Has one bad chip among good ones.
        renewed: Get a new chip each after the backfills.
    """

    tiles: tuple[str, ...]
    empty: str
    broken: str
    mixed: str
    renewed: tuple[str, str, str]

    @property
    def good(self) -> tuple[str, ...]:
        """Tiles that can be published."""
        return tuple(tile for tile in self.tiles if tile not in (self.empty, self.broken))

    def rows(self, tile: str) -> int:
        """Rows that a good tile's file is to have."""
        return CHIPS * len(DATES) - (tile == self.mixed)


def assemble_cast() -> Cast:
    """Forty tiles of UTM zone 33, from Tuscany to Denmark."""
    tiles = sorted(f"33{row[0]}{column}{row[1]}" for row in ROWS for column in COLUMNS)
    return Cast(tuple(tiles), tiles[5], tiles[16], tiles[27], (tiles[2], tiles[20], tiles[33]))


def write_chips(store: Store, cast: Cast) -> None:
    """Put every tile's chips into the bucket."""
    for tile in cast.tiles:
        if tile == cast.empty:
            continue
        for key, number, date in _keys(tile):
            broken = tile == cast.broken or (tile == cast.mixed and (number, date) == (2, DATES[0]))
            store.write(key, b"no GeoTIFF at all" if broken else make_chip(tile, number, date))


def add_new_chips(store: Store, cast: Cast) -> None:
    """Put one more chip into each of the tiles that are renewed."""
    for tile in cast.renewed:
        number = CHIPS + 1
        store.write(
            f"{tile}/{DATES[1]}/{chip_name(number, tile=tile, date=DATES[1])}",
            make_chip(tile, number, DATES[1]),
        )


def _keys(tile: str) -> Iterator[tuple[str, int, str]]:
    for date in DATES:
        for number in range(1, CHIPS + 1):
            yield f"{tile}/{date}/{chip_name(number, tile=tile, date=date)}", number, date


def make_chip(tile: str, number: int, date: str) -> bytes:
    """One chip of a tile, unlike every other: the pattern's strength and offset differ by chip."""
    west = COLUMNS[tile[3]] + 5_120 * number
    north = ROWS[tile[2] + tile[4]] * 100_000 + 60_000
    strength = 1 + 0.3 * number + 0.7 * DATES.index(date)
    pixels = chip_pixels() * np.float32(strength) + np.float32(sum(map(ord, tile)) % 97)
    return chip_bytes(pixels, crs=ZONE, origin=(west, north), date=date)
