"""Chips, and the vectors that the published Clay v0 code computes for them; see `README.md`."""

import datetime
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from clay_assets_tests.recipe import chip_pixels

FOLDER = Path(__file__).parent
REAL_PIXELS = FOLDER.parents[1] / "clay_assets" / "demo" / "real_chips.npz"
MARGIN = 144
"""Pixels on each side of a real chip that mirror its centre."""


@dataclass(frozen=True)
class GoldenChip:
    """A chip, and what the reference derived from its file.

    Attributes:
        name: Name of a recipe chip's pixels, or MGRS tile of a real chip.
        file_name: File name in the bucket.
        date: Acquisition date.
        epsg: Code of its UTM zone.
        left: Easting of the left edge, metres.
        top: Northing of the upper edge, metres.
        place: Latitude and longitude as the network's input.
        timestep: Year, month and day as the network's input.
        footprint: WKT polygon in OGC:CRS84.
        real: Whether its pixels are real; otherwise the recipe generates them.
    """

    name: str
    file_name: str
    date: datetime.date
    epsg: int
    left: float
    top: float
    place: tuple[float, float]
    timestep: tuple[float, float, float]
    footprint: str
    real: bool

    @property
    def lonlat(self) -> tuple[float, float]:
        """Longitude and latitude of its centre in WGS 84, degrees."""
        to_degrees = Transformer.from_crs(self.epsg, "OGC:CRS84", always_xy=True)
        longitude, latitude = to_degrees.transform(self.left + 2560, self.top - 2560)
        return longitude, latitude

    def pixels(self) -> NDArray[np.float32]:
        """(13, 512, 512) in physical units, bands in the order of the network."""
        if not self.real:
            return chip_pixels(self.name)
        with np.load(REAL_PIXELS) as arrays:
            centre = [arrays[f"{self.name}_{part}"] for part in ("optical", "sar", "dem")]
        pixels = np.concatenate([part.astype(np.float32) for part in centre])
        return np.pad(pixels, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)), mode="symmetric")


@cache
def expected() -> dict[str, NDArray[np.floating]]:
    """The reference's arrays by name; `README.md` lists them."""
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


def _chips(kind: str) -> tuple[GoldenChip, ...]:
    cases = json.loads((FOLDER / "cases.json").read_text())[kind]
    return tuple(
        GoldenChip(
            **case
            | {
                "date": datetime.date.fromisoformat(case["date"]),
                "place": tuple(case["place"]),
                "timestep": tuple(case["timestep"]),
                "real": kind == "real",
            }
        )
        for case in cases
    )


RECIPE_CHIPS = _chips("recipe")
REAL_CHIPS = _chips("real")
