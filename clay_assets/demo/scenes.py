"""The two landscapes of the demo, and the two dates that each is seen on.

Here: numbers that make a landscape look like its part of the world. Neither is an observation.
Not here: what the numbers do (see `relief`, `cover` and `rendering`).
"""

import datetime
from dataclasses import dataclass

from clay_assets.demo.cover import Vegetation
from clay_assets.demo.relief import Terrain
from clay_assets.demo.rendering import Season


@dataclass(frozen=True)
class Scene:
    """One tile of the demo.

    Attributes:
        tile: MGRS code.
        epsg: Code of its UTM zone.
        west: Easting of the upper-left corner of Sentinel-2's tile, metres.
        north: Northing of it, metres.
        first_row: Where in the tile's grid of chips the demo's block begins, from 0.
        first_column: Where in a row it begins, from 0.
        terrain: How the landscape lies.
        vegetation: What grows there.
        seasons: The dates.
    """

    tile: str
    epsg: int
    west: int
    north: int
    first_row: int
    first_column: int
    terrain: Terrain
    vegetation: Vegetation
    seasons: tuple[Season, ...]


ICELAND = Scene(
    tile="27WXN",
    epsg=32627,
    west=600_000,
    north=7_300_020,
    first_row=8,
    first_column=6,
    terrain=Terrain(
        seed=3,
        valleys=(0, 1),
        offset=0.17,
        meander=900,
        half_width=1100,
        floor_height=-160,
        floor_rise=(0.0032, 0.0),
        steepness=0.19,
        ruggedness=10,
        sea=True,
        hollows=0,
        river_width=70,
    ),
    vegetation=Vegetation(
        farmland=0.55,
        farm_line=60,
        parcel=420,
        forest=0.12,
        conifers=0.4,
        tree_line=250,
        plant_line=650,
        gravel=0.7,
    ),
    seasons=(
        Season(
            date=datetime.date(2020, 6, 15),
            sun_azimuth=165,
            sun_elevation=47,
            snow_line=600,
            green=0.8,
            crops=((0.95, 0, 0), (0.85, 0, 0.05), (0.7, 0, 0.2), (0.3, 0, 0.1)),
        ),
        Season(
            date=datetime.date(2020, 9, 8),
            sun_azimuth=172,
            sun_elevation=30,
            snow_line=900,
            green=0.5,
            crops=((0.55, 0, 0.4), (0.8, 0, 0.1), (0.25, 0, 0.7), (0.3, 0, 0.6)),
        ),
    ),
)

CHILE = Scene(
    tile="18HYB",
    epsg=32718,
    west=699_960,
    north=5_700_040,
    first_row=4,
    first_column=5,
    terrain=Terrain(
        seed=11,
        valleys=(1, 0),
        offset=0.93,
        meander=1500,
        half_width=2300,
        floor_height=60,
        floor_rise=(0.001, 0.0022),
        steepness=0.11,
        ruggedness=6,
        sea=False,
        hollows=25,
        river_width=120,
    ),
    vegetation=Vegetation(
        farmland=0.9,
        farm_line=40,
        parcel=620,
        forest=0.45,
        conifers=0.5,
        tree_line=1500,
        plant_line=1900,
        gravel=0.3,
    ),
    seasons=(
        Season(
            date=datetime.date(2020, 4, 8),
            sun_azimuth=38,
            sun_elevation=38,
            snow_line=2600,
            green=0.55,
            crops=(
                (0.05, 0, 0.85),
                (0.1, 0, 0.1),
                (0.75, 0, 0.1),
                (0, 0, 0.15),
                (0.5, 0, 0.3),
                (0.05, 0, 0.55),
            ),
        ),
        Season(
            date=datetime.date(2020, 11, 14),
            sun_azimuth=62,
            sun_elevation=60,
            snow_line=2300,
            green=1.0,
            crops=((0.95, 0, 0), (0.3, 0.6, 0), (0.9, 0, 0.05), (0.15, 0, 0), (0.8, 0, 0.05), (0.9, 0, 0.1)),
        ),
    ),
)

SCENES = (ICELAND, CHILE)
