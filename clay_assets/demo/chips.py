"""Demo chips, written as the bucket has them: names, folders, grid, tags and TIFF layout.

Here: which chips of a tile's grid are made, and their files.
Not here: what is on them (see `relief`, `cover`, `rendering`), and how chips are read (`clay_assets.chips`).
"""

import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import rasterio
from rasterio.errors import RasterioIOError
from rasterio.transform import Affine

from clay_assets.demo.cover import lay_cover
from clay_assets.demo.noise import Floats, NoiseWindow
from clay_assets.demo.relief import PIXEL, raise_relief
from clay_assets.demo.rendering import Season, render
from clay_assets.demo.scenes import SCENES, Scene
from clay_model.spec import BANDS, CHIP_SIZE

RECIPE = 1
"""Raised whenever the same scene would come out otherwise: chips made before are then made anew."""

GRID_SIDE = 21
"""Whole chips along a side of a tile: Sentinel-2's tiles are 10,980 pixels wide."""

Layout = Literal["strips", "tiles"]
"""How a TIFF is cut up: strips of one row as in the bucket, or tiles of 256 x 256 pixels."""

_LAYOUTS: dict[Layout, dict[str, str | int | bool]] = {
    "strips": {"blockysize": 1},
    "tiles": {"tiled": True, "blockxsize": 256, "blockysize": 256, "predictor": 3},
}


@dataclass(frozen=True)
class Place:
    """One place of a tile's grid of chips.

    Attributes:
        row: From the north, from 0.
        column: From the west, from 0.
    """

    row: int
    column: int

    @property
    def number(self) -> int:
        """The chip's number in its name: row by row from the north-west, from 1."""
        return self.row * GRID_SIDE + self.column + 1


def write_chips_of_tile(root: Path, tile: str, count: int, layout: Layout = "strips") -> int:
    """Make the demo chips of a tile, except those that are there and would come out the same.

    Args:
        root: Folder that gets one folder per tile.
        tile: MGRS code of one of `SCENES`.
        count: Chips, half of them on each of two dates: the same block of neighbours on both.
        layout: Of the TIFFs.

    Returns:
        How many were written.

    Raises:
        ValueError: If there is no scene for the tile, or its grid has not so many chips.
    """
    scene = scene_of(tile)
    places = block_of(scene, math.ceil(count / len(scene.seasons)))
    wanted = [(season, place) for season in scene.seasons for place in places][:count]
    recipe = _recipe(scene, layout)
    missing = [
        (season, place)
        for season, place in wanted
        if not _is_current(root / chip_path(scene, season, place), recipe)
    ]
    for place in places:
        seasons = [season for season, at in missing if at == place]
        for season, pixels in zip(seasons, _views(scene, place, seasons), strict=True):
            _write(root / chip_path(scene, season, place), pixels, scene, season, place, layout)
    return len(missing)


def scene_of(tile: str) -> Scene:
    """The scene of a tile.

    Raises:
        ValueError: If there is none.
    """
    for scene in SCENES:
        if scene.tile == tile:
            return scene
    raise ValueError(
        f"there is no demo landscape for tile {tile!r}, only for {', '.join(s.tile for s in SCENES)}"
    )


def block_of(scene: Scene, count: int) -> list[Place]:
    """A block of neighbouring places, about as wide as high, from the scene's first place to the south-east.

    Raises:
        ValueError: If the grid has not so many places, or fewer than one are asked for.
    """
    if not 1 <= count <= GRID_SIDE**2:
        raise ValueError(f"{count} chips of a tile on one date: expected 1 to {GRID_SIDE**2}")
    width = min(GRID_SIDE, math.ceil(count / math.isqrt(count)))
    height = math.ceil(count / width)
    top = min(scene.first_row, GRID_SIDE - height)
    left = min(scene.first_column, GRID_SIDE - width)
    return [Place(top + n // width, left + n % width) for n in range(count)]


def chip_path(scene: Scene, season: Season, place: Place) -> Path:
    """Where a chip lies under the root: `{MGRS}/{YYYY-MM-DD}/claytile_{MGRS}_{YYYYMMDD}_v02_{NNNN}.tif`."""
    name = f"claytile_{scene.tile}_{season.date:%Y%m%d}_v02_{place.number:04}.tif"
    return Path(scene.tile, season.date.isoformat(), name)


def _views(scene: Scene, place: Place, seasons: list[Season]) -> Iterator[Floats]:
    """The pixels of one place on some dates, (13, 512, 512) each; the ground is worked out once."""
    if not seasons:
        return
    top, left = place.row * CHIP_SIZE, place.column * CHIP_SIZE
    relief = raise_relief(scene.terrain, top, left, CHIP_SIZE)
    noise = NoiseWindow(scene.terrain.seed, top, left, CHIP_SIZE, CHIP_SIZE)
    cover = lay_cover(scene.vegetation, relief, noise)
    for season in seasons:
        yield render(relief, cover, noise, season)


def _recipe(scene: Scene, layout: Layout) -> str:
    """A word that changes whenever any pixel or the layout of the scene's chips would."""
    return f"{RECIPE}-{layout}-{zlib.crc32(repr(scene).encode()):08x}"


def _is_current(path: Path, recipe: str) -> bool:
    """Whether a chip of this recipe is there; it is whole, because it got its name last."""
    if not path.is_file():
        return False
    try:
        with rasterio.open(path) as chip:
            return bool(chip.tags().get("recipe") == recipe)
    except RasterioIOError:
        return False


def _write(path: Path, pixels: Floats, scene: Scene, season: Season, place: Place, layout: Layout) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    west = scene.west + place.column * CHIP_SIZE * PIXEL
    north = scene.north - place.row * CHIP_SIZE * PIXEL
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with rasterio.open(
            partial,
            "w",
            driver="GTiff",
            width=CHIP_SIZE,
            height=CHIP_SIZE,
            count=len(BANDS),
            dtype="float32",
            crs=f"EPSG:{scene.epsg}",
            transform=Affine(PIXEL, 0, west, 0, -PIXEL, north),
            interleave="pixel",
            compress="deflate",
            zlevel=1,  # 3 % larger than at the default of 6, in two thirds of the time
            **_LAYOUTS[layout],
        ) as chip:
            chip.write(pixels)
            chip.descriptions = BANDS
            chip.update_tags(
                date=season.date.isoformat(),
                recipe=_recipe(scene, layout),
                source="an invented landscape of the demo, not an observation",
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # what an interruption leaves
