"""Windows and the vectors that the published Clay v1.5 encoder computes for them."""

import datetime
import json
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from clay_assets_tests.golden import FOLDER, REAL_CHIPS
from clay_assets_tests.recipe import chip_pixels


@dataclass(frozen=True)
class GoldenWindow:
    """A window of a chip, and its context.

    Attributes:
        pixels_of: Name of a recipe chip's pixels, or MGRS tile of a real chip.
        window: Row, column, height and width in the chip, pixels.
        moment: Acquisition time, UTC; None if the network got none.
        lonlat: Longitude and latitude of its centre, degrees; None if the network got none.
        time: Sine and cosine of week and hour as the network's input.
        latlon: Sine and cosine of latitude and longitude as the network's input.
    """

    pixels_of: str
    window: tuple[int, int, int, int]
    moment: datetime.datetime | None
    lonlat: tuple[float, float] | None
    time: tuple[float, float, float, float]
    latlon: tuple[float, float, float, float]

    def pixels(self) -> NDArray[np.float32]:
        """(10, height, width) in physical units, bands in the order of the network."""
        row, column, height, width = self.window
        return _chip(self.pixels_of)[:10, row : row + height, column : column + width]


@cache
def _chip(name: str) -> NDArray[np.float32]:
    real = [chip for chip in REAL_CHIPS if chip.name == name]
    return real[0].pixels() if real else chip_pixels(name)


@cache
def expected() -> dict[str, NDArray[np.floating]]:
    """The reference's arrays by name; `README.md` lists them."""
    with np.load(FOLDER / "v15_expected.npz") as arrays:
        return dict(arrays)


def _windows() -> tuple[GoldenWindow, ...]:
    cases = json.loads((FOLDER / "v15_cases.json").read_text())
    return tuple(
        GoldenWindow(
            pixels_of=case["pixels"],
            window=tuple(case["window"]),
            moment=datetime.datetime.fromisoformat(case["moment"]) if case["moment"] else None,
            lonlat=tuple(case["lonlat"]) if case["lonlat"] else None,
            time=tuple(case["time"]),
            latlon=tuple(case["latlon"]),
        )
        for case in cases
    )


WINDOWS = _windows()
