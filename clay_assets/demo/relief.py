"""The shape of an invented landscape: rivers, their valleys, the mountains between them, lakes and the sea.

Here: heights, slopes, and where water stands or runs. The large shapes are eroded on a coarse grid, once, and
repeat themselves after `PERIOD` pixels; what is finer is noise and does not.
Not here: what grows or lies on the ground (see `cover`).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clay_assets.demo.erosion import erode
from clay_assets.demo.noise import Floats, NoiseWindow, spline_weights

PIXEL = 10.0
"""Side of a pixel in metres."""

MARGIN = 1
"""Pixels worked out beyond each edge, so that slopes are the same from either side of an edge."""

PERIOD = 2048
"""Pixels after which valleys and mountains repeat themselves: four chips."""

COARSE = 8
"""Pixels along a cell of the grid that is eroded."""


@dataclass(frozen=True)
class Terrain:
    """How a landscape lies; heights and lengths in metres.

    Attributes:
        seed: Another seed, another landscape of the same kind.
        valleys: How many main valleys one crosses in a `PERIOD` to the south, and to the east.
        offset: Where the first of them lies, as a part of the way from one to the next.
        meander: How far the rivers swing.
        half_width: Of a valley's floor: from the river to the foot of the mountains.
        floor_height: Height of the valley floors at the landscape's origin.
        floor_rise: Rise of the floors for each metre to the south, and to the east.
        steepness: Slope of a stream in the mountains that drains 1 km².
        ruggedness: Height of the crags on mountainsides.
        sea: Whether ground below 0 m is under water; where not, each valley has a water table.
        hollows: Depth of the deepest hollows of the valley floors, which lakes fill; 0 for no lakes.
        river_width: From bank to bank.
    """

    seed: int
    valleys: tuple[int, int]
    offset: float
    meander: float
    half_width: float
    floor_height: float
    floor_rise: tuple[float, float]
    steepness: float
    ruggedness: float
    sea: bool
    hollows: float
    river_width: float


@dataclass(frozen=True, eq=False)
class Relief:
    """The shape of a piece of ground; every array is (height, width) float32, metres where not said.

    Attributes:
        height: Of the surface; of the water's surface where there is water.
        above_floor: Height over the valley floor.
        above_water: Height over the sea or the water table; below 0 under water.
        to_river: Distance from the middle of the nearest river.
        river_width: From bank to bank of the nearest river.
        rise_east: Metres up for each metre to the east.
        rise_north: Metres up for each metre to the north.
        slope: Metres up for each metre straight uphill.
    """

    height: Floats
    above_floor: Floats
    above_water: Floats
    to_river: Floats
    river_width: Floats
    rise_east: Floats
    rise_north: Floats
    slope: Floats


def ramp(values: Floats, low: float, high: float) -> Floats:
    """0 at `low` and before, 1 at `high` and beyond, smooth between; falling where `low` > `high`."""
    t = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    smooth: Floats = t * t * (3 - 2 * t)
    return smooth


def raise_relief(terrain: Terrain, top: int, left: int, size: int) -> Relief:
    """Work out the shape of a square of ground.

    Args:
        terrain: How the landscape lies.
        top: First row, in pixels to the south of the landscape's origin.
        left: First column, in pixels to the east of it.
        size: Pixels along a side.
    """
    wide = size + 2 * MARGIN
    noise = NoiseWindow(terrain.seed, top - MARGIN, left - MARGIN, wide, wide)
    from_axis = _from_axis(terrain, noise)
    south, east = (np.float32(PIXEL * rise) for rise in terrain.floor_rise)
    floor = np.float32(terrain.floor_height) + south * noise.rows + east * noise.columns
    bed = floor + _over_floor(terrain, noise, from_axis)
    water = np.zeros_like(bed) if terrain.sea else np.broadcast_to(floor - 3, bed.shape)
    surface = np.maximum(bed, water)
    inner = slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN)
    rise_east = np.gradient(surface, PIXEL, axis=1)[inner]
    rise_north = -np.gradient(surface, PIXEL, axis=0)[inner]
    return Relief(
        height=surface[inner],
        above_floor=(surface - floor)[inner],
        above_water=(bed - water)[inner],
        to_river=_to_river(from_axis)[inner],
        river_width=(terrain.river_width * (1 + 0.3 * noise.smooth("width", 60)))[inner],
        rise_east=rise_east,
        rise_north=rise_north,
        slope=np.hypot(rise_east, rise_north),
    )


def _from_axis(terrain: Terrain, noise: NoiseWindow) -> Floats:
    """Distance from the middle of the nearest river, roughly; it repeats itself after a `PERIOD`."""
    south, east = terrain.valleys
    spacing = PIXEL * PERIOD / np.hypot(south, east)
    crossed = (noise.rows * south + noise.columns * east) / np.float32(PERIOD) + np.float32(terrain.offset)
    swing = noise.fractal("meander", (512, 256, 64), 0.42, PERIOD)
    phase = (crossed + swing * np.float32(terrain.meander / spacing)) * np.float32(np.pi)
    from_axis: Floats = np.abs(np.sin(phase)) * np.float32(spacing / np.pi)
    return from_axis


def _to_river(from_axis: Floats) -> Floats:
    """The distance corrected near the river: where a course bends, `from_axis` grows faster or slower."""
    growth = np.hypot(*np.gradient(from_axis, PIXEL))
    exact = from_axis / np.clip(growth, 0.5, 3)
    return from_axis + ramp(from_axis, 600, 200) * (exact - from_axis)


def _over_floor(terrain: Terrain, noise: NoiseWindow, from_axis: Floats) -> Floats:
    """Height of the ground over the valley floor; the hollows are below it."""
    coarse = _eroded(terrain)
    first_row, row_weights = spline_weights(noise.rows[:, 0] / COARSE - 0.5)
    first_column, column_weights = spline_weights(noise.columns[0] / COARSE - 0.5)
    rows = (first_row + np.arange(row_weights.shape[1])) % len(coarse)
    columns = (first_column + np.arange(column_weights.shape[1])) % len(coarse)
    mountains = (row_weights @ coarse[np.ix_(rows, columns)] @ column_weights.T).astype(np.float32)
    crags = terrain.ruggedness * noise.fractal("crags", (24, 12, 6, 3), 0.6) * ramp(mountains, 10, 250)
    roll = 5 * noise.fractal("roll", (200, 90, 40, 18), 0.5) * ramp(from_axis, 60, 600)
    hollows = terrain.hollows * ramp(noise.smooth("lakes", 210), 0.9, 2.2) * ramp(mountains, 60, 0)
    return mountains + crags + roll - hollows


@lru_cache(maxsize=4)
def _eroded(terrain: Terrain) -> Floats:
    """Heights of one period over the valley floor, in cells of `COARSE` pixels."""
    side = PERIOD // COARSE
    noise = NoiseWindow(terrain.seed, 0, 0, side, side, step=COARSE)
    from_axis = _from_axis(terrain, noise)
    half_width = terrain.half_width * (1 + 0.35 * noise.fractal("spread", (256, 128, 64), 0.5, PERIOD))
    hardness = np.exp(0.4 * noise.fractal("hardness", (512, 256, 128), 0.6, PERIOD))
    on_floor = ramp(from_axis - half_width, 400, 0)
    steepness = terrain.steepness * hardness * (1 - on_floor) + np.float32(0.004) * on_floor
    return erode(from_axis < PIXEL * COARSE, steepness, PIXEL * COARSE)
