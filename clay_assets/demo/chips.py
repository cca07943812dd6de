"""Demo chips of two real places, with the bucket's names, folders, tags and TIFF layout.

Here: the pixels, the location and the file of each chip. Not here: the source of the pixels (`README.md` in
this folder), and reading chips (`clay_assets.chips`).

A place has 224 x 224 pixels, a chip 512 x 512. The demo enlarges the place (nearest neighbour, so that every
value is an observed one) until it fills a block of four by three chips: 10 m of the place are 91 m of its
block. At its true scale a place is smaller than a chip, and its mirror images continue it.
"""

import datetime
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from clay_assets.storage.folder import replacing
from clay_model.spec import BANDS, CHIP_SIZE

SOURCE = Path(__file__).with_name("real_chips.npz")
SOURCE_SIZE = 224
"""Pixels along a side of a real place."""

PIXEL = 10
"""Metres."""

CHIPS = 12
"""Chips of a tile in the demo: four columns, three rows."""

ENLARGED = SOURCE_SIZE // 4
"""Real pixels along a side of a chip: four columns of chips show the whole width of the place."""


@dataclass(frozen=True)
class Scene:
    """A real place, and the location of the demo's chips: near it, on the grid of its Sentinel-2 tile.

    Attributes:
        tile: MGRS code.
        place: Name of the place.
        date: Acquisition date of the Sentinel-2 scene.
        epsg: EPSG code of the tile's UTM zone.
        west: Easting of the left edge of the chips, metres.
        north: Northing of the upper edge of the chips, metres.
    """

    tile: str
    place: str
    date: datetime.date
    epsg: int
    west: int
    north: int


CHILE = Scene("18HYB", "southern Chile", datetime.date(2020, 4, 8), 32718, 715_320, 5_694_920)
BRAZIL = Scene("22JGS", "the coast of Paraná, Brazil", datetime.date(2021, 7, 23), 32722, 787_000, 7_194_920)
SCENES = (CHILE, BRAZIL)


def write_chips(root: Path, scene: Scene, count: int = CHIPS, span: int = ENLARGED) -> int:
    """Write the missing chips of a place.

    Args:
        root: Folder of the tiles' folders.
        scene: The place.
        count: Number of chips: a block of adjacent chips, row by row, about as wide as it is high. At most 49
            fit `CHILE`.
        span: Real pixels along a side of a chip; 512 is the true scale.

    Returns:
        Number of chips written.
    """
    width, side, written = math.ceil(math.sqrt(count)), CHIP_SIZE * PIXEL, 0
    for number in range(count):
        row, column = divmod(number, width)
        name = f"claytile_{scene.tile}_{scene.date:%Y%m%d}_v02_{number + 1:04}.tif"
        path = root / scene.tile / scene.date.isoformat() / name
        if not path.exists():
            transform = Affine(PIXEL, 0, scene.west + column * side, 0, -PIXEL, scene.north - row * side)
            _write(path, scene, transform, chip_pixels(scene.tile, row, column, span))
            written += 1
    return written


def chip_pixels(tile: str, row: int, column: int, span: int) -> NDArray[np.float32]:
    """Return the pixels of one chip of the block.

    Args:
        tile: MGRS code of the place.
        row: Row in the block, from 0.
        column: Column in the block, from 0.
        span: Real pixels along a side of a chip.

    Returns:
        (13, 512, 512) in physical units, bands in the order of `BANDS`.
    """
    return _place(tile)[:, _nearest(row, span)[:, np.newaxis], _nearest(column, span)]


def _nearest(index: int, span: int) -> NDArray[np.intp]:
    """Return the real row (or column) for each row of a chip; mirrored beyond the edge of the place."""
    along = (2 * (index * CHIP_SIZE + np.arange(CHIP_SIZE)) + 1) * span // (2 * CHIP_SIZE) % (2 * SOURCE_SIZE)
    return np.minimum(along, 2 * SOURCE_SIZE - 1 - along)


@cache
def _place(tile: str) -> NDArray[np.float32]:
    """Return the pixels of a place, (13, 224, 224)."""
    with np.load(SOURCE) as arrays:
        parts = [arrays[f"{tile}_{part}"].astype(np.float32) for part in ("optical", "sar", "dem")]
    return np.concatenate(parts)


def _write(path: Path, scene: Scene, transform: Affine, pixels: NDArray[np.float32]) -> None:
    bands, height, width = pixels.shape
    tags = {"date": scene.date.isoformat(), "TIFFTAG_COPYRIGHT": "Contains modified Copernicus Sentinel data"}
    with MemoryFile() as memory:
        with memory.open(
            **{"driver": "GTiff", "width": width, "height": height, "count": bands, "dtype": "float32"},
            **{"crs": f"EPSG:{scene.epsg}", "transform": transform},
            **{"interleave": "pixel", "blockysize": 1, "compress": "deflate", "zlevel": 1},
        ) as chip:
            chip.write(pixels)
            chip.descriptions = BANDS
            chip.update_tags(**tags)
        with replacing(path) as file:
            file.write(memory.getbuffer())
