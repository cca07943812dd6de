"""What covers an invented landscape all year: water, rock, gravel, forest, fields, meadow and heath.

Here: rules that put each cover where it would be. Fields take the low flat ground, forest the slopes, rock
what is steep or high, gravel the banks.
Not here: the shape of the ground (see `relief`), and what the seasons change (see `rendering`).
"""

from dataclasses import dataclass

import numpy as np

from clay_assets.demo.noise import Floats, NoiseWindow
from clay_assets.demo.relief import PIXEL, Relief, ramp


@dataclass(frozen=True)
class Vegetation:
    """What grows in a landscape.

    Attributes:
        farmland: How much of the ground fit for fields is farmed, 0 to 1.
        farm_line: Height above the valley floor that fields climb to, metres.
        parcel: Side of a typical block of fields, metres.
        forest: How much of the ground below the tree line is forest, 0 to 1.
        conifers: How much of the forest is of conifers, 0 to 1.
        tree_line: Above it no forest grows, metres.
        plant_line: Above it next to nothing grows, metres.
        gravel: How much of a river's bed is bare gravel, 0 to 1.
    """

    farmland: float
    farm_line: float
    parcel: float
    forest: float
    conifers: float
    tree_line: float
    plant_line: float
    gravel: float


@dataclass(frozen=True, eq=False)
class Cover:
    """What covers each pixel; every array is (height, width) float32 in 0 to 1.

    Where covers overlap, the one that stands first here hides the others; meadow and heath are what is left.

    Attributes:
        water: Part under water.
        clearness: How much of the water looks deep.
        rock: Part of bare rock.
        gravel: Part of gravel or sand.
        farmland: Part of fields.
        forest: Part of trees.
        conifers: Part of the trees that keep their needles.
        lushness: How much of the open land is meadow and not heath.
        crop: Says which crop a field bears; every number is equally likely.
        vigour: How well a field does against others of its crop.
    """

    water: Floats
    clearness: Floats
    rock: Floats
    gravel: Floats
    farmland: Floats
    forest: Floats
    conifers: Floats
    lushness: Floats
    crop: Floats
    vigour: Floats


def lay_cover(vegetation: Vegetation, relief: Relief, noise: NoiseWindow) -> Cover:
    """Work out what covers a piece of ground.

    Args:
        vegetation: What grows in the landscape.
        relief: The shape of the ground.
        noise: Over the same pixels.
    """
    patchy = noise.fractal("patchy", (96, 40, 16, 7, 3), 0.68)
    standing = ramp(relief.above_water, 0.6, 0.0)
    stream = ramp(relief.to_river - relief.river_width * np.float32(0.5), 8, -8)
    dry = ramp(relief.to_river, 30, 140) * ramp(relief.above_water, 1.5, 4)
    crop, vigour, inside = _fields(vegetation.parcel / PIXEL, noise)
    return Cover(
        water=np.maximum(standing, stream),
        clearness=np.where(
            relief.above_water < 0, 1 - 0.85 * ramp(relief.above_water + 2 * patchy, -22, -1), np.float32(0.4)
        ),
        rock=_rock(vegetation, relief, noise, patchy),
        gravel=_gravel(vegetation, relief, patchy),
        farmland=_farmland(vegetation, relief, noise, patchy) * dry * inside,
        forest=_forest(vegetation, relief, patchy) * dry,
        conifers=ramp(
            noise.fractal("species", (70, 24, 8), 0.6) + 3 * (vegetation.conifers - 0.5), -0.5, 0.5
        ),
        lushness=ramp(
            noise.fractal("lush", (130, 50, 20, 8), 0.65)
            - 2.5 * relief.slope
            - 2.5 * relief.height / vegetation.plant_line,
            *(-3.2, 0.2),
        ),
        crop=crop,
        vigour=vigour,
    )


def _rock(vegetation: Vegetation, relief: Relief, noise: NoiseWindow, patchy: Floats) -> Floats:
    """Cliffs, and summits above the last plants."""
    line = vegetation.plant_line
    cliffs = ramp(relief.slope + 0.07 * noise.fractal("cliffs", (9, 4), 0.7), 0.55, 0.85)
    return np.maximum(cliffs, 0.9 * ramp(relief.height + 70 * patchy, line - 160, line + 160))


def _gravel(vegetation: Vegetation, relief: Relief, patchy: Floats) -> Floats:
    """Bars along the rivers and beaches along standing water."""
    bed = relief.to_river - relief.river_width * (0.5 + 2 * vegetation.gravel)
    bars = ramp(bed, 40, -20) * ramp(patchy + 3 * vegetation.gravel, 1, 2)
    return np.maximum(bars, 0.8 * ramp(relief.above_water, 2.5, 0.8) * ramp(patchy, 0, 1))


def _farmland(vegetation: Vegetation, relief: Relief, noise: NoiseWindow, patchy: Floats) -> Floats:
    """Ground flat and low enough for a plough, where people live."""
    flat = ramp(relief.slope + 0.02 * patchy, 0.14, 0.07)
    low = ramp(relief.above_floor + 12 * patchy, vegetation.farm_line + 20, vegetation.farm_line - 20)
    settled = noise.fractal("farms", (300, 120, 40), 0.6) + 2.6 * vegetation.farmland
    return flat * low * ramp(settled, 1.2, 1.5)


def _forest(vegetation: Vegetation, relief: Relief, patchy: Floats) -> Floats:
    """Trees: rather on slopes, which nobody ploughs, and in patches where the climate has few."""
    line = vegetation.tree_line
    wooded = patchy + 4 * np.minimum(relief.slope, 0.4) + 2.4 * (vegetation.forest - 0.8)
    return ramp(wooded, -0.2, 0.5) * ramp(relief.height + 60 * patchy, line + 80, line - 80)


def _fields(side: float, noise: NoiseWindow) -> tuple[Floats, Floats, Floats]:
    """Fields: blocks of a turned grid, each cut into strips of its own number and direction.

    Returns:
        Crop and vigour, 0 to 1 and the same all over a field; 1 inside of it, less on hedge and ditch.
    """
    district = noise.smooth("district", 230) > 0.1
    angle = np.where(district, np.float32(0.35), np.float32(-0.6))
    cos, sin = np.cos(angle), np.sin(angle)
    bend = 3 * noise.smooth("bend", 60)
    wide, deep = np.float32(side), np.float32(0.7 * side)
    v = (noise.rows * cos - noise.columns * sin + bend) / deep
    row = np.floor(v)
    u = (noise.columns * cos + noise.rows * sin + bend) / wide + noise.uniform("stagger", row)
    column = np.floor(u)
    u, v = u - column, v - row
    upright = noise.uniform("upright", column, row) < 0.5
    strips = 1 + np.floor(4 * noise.uniform("strips", column, row))
    along = np.where(upright, u, v) * strips
    strip = np.floor(along)
    along -= strip
    across = np.where(upright, v, u)
    to_edge = np.minimum(
        np.minimum(along, 1 - along) * np.where(upright, wide, deep) / strips,
        np.minimum(across, 1 - across) * np.where(upright, deep, wide),
    )
    field = column, row, strip + 8 * district
    return noise.uniform("crop", *field), noise.uniform("vigour", *field), ramp(to_edge, -0.2, 1.4)
