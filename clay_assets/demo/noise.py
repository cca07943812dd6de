"""Smooth noise at fixed places: the same ground, whichever part of it is asked for.

Here: numbers that depend on nothing but a seed, a name and a place, so that neighbouring chips continue each
other and can be made one at a time, in any order.
Not here: what the numbers mean (see `relief` and `cover`).
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SPLINE_DEVIATION = 0.277
"""Standard deviation of a cubic B-spline surface over uniform values in -1 to 1: 0.577 x 0.479."""


@dataclass(frozen=True)
class NoiseWindow:
    """Noise over a rectangle of samples. Two windows of one seed agree wherever they overlap.

    Attributes:
        seed: Of the landscape.
        top: First row, in samples to the south of the landscape's origin.
        left: First column, in samples to the east of it.
        height: Rows.
        width: Columns.
        step: Pixels from one sample to the next.
    """

    seed: int
    top: int
    left: int
    height: int
    width: int
    step: int = 1

    @property
    def rows(self) -> Floats:
        """How far south each row's middle lies from the origin, in pixels; (height, 1)."""
        row = np.arange(self.top, self.top + self.height, dtype=np.float32)
        return ((row + np.float32(0.5)) * np.float32(self.step))[:, None]

    @property
    def columns(self) -> Floats:
        """How far east each column's middle lies from the origin, in pixels; (1, width)."""
        column = np.arange(self.left, self.left + self.width, dtype=np.float32)
        return ((column + np.float32(0.5)) * np.float32(self.step))[None]

    def smooth(self, name: str, cell: int, period: int = 0) -> Floats:
        """One octave of noise: hills about `cell` pixels apart.

        Args:
            name: Fields of different names are independent of each other.
            cell: Spacing of the random values that the surface is drawn through, in pixels.
            period: Pixels after which the surface repeats itself, a multiple of `cell`; 0: never.

        Returns:
            (height, width) with mean 0 and standard deviation 1, twice continuously differentiable.
        """
        first_row, row_weights = spline_weights(self.rows[:, 0] / cell)
        first_column, column_weights = spline_weights(self.columns[0] / cell)
        i = first_row + np.arange(row_weights.shape[1])[:, None]
        j = first_column + np.arange(column_weights.shape[1])[None]
        if period:
            i, j = i % (period // cell), j % (period // cell)
        values = (2 * self.uniform(f"{name}/{cell}", i, j) - 1) / np.float32(SPLINE_DEVIATION)
        surface: Floats = row_weights @ values @ column_weights.T
        return surface

    def fractal(self, name: str, cells: Sequence[int], gain: float = 0.5, period: int = 0) -> Floats:
        """Several octaves of noise, each finer one `gain` times as strong as the one before.

        Returns:
            (height, width) with mean 0 and standard deviation 1.
        """
        total = np.zeros((self.height, self.width), np.float32)
        for octave, cell in enumerate(cells):
            total += np.float32(gain**octave) * self.smooth(name, cell, period)
        return total / np.float32(np.sqrt(sum(gain ** (2 * octave) for octave in range(len(cells)))))

    def uniform(self, name: str, *places: NDArray[np.generic]) -> Floats:
        """A number in 0 to 1 for each place, the same for the same whole-numbered coordinates.

        Args:
            name: Numbers of different names are independent of each other.
            places: Coordinates that broadcast against each other; whole numbers.
        """
        mixed = np.full(1, zlib.crc32(f"{self.seed}/{name}".encode()), np.uint32)
        for place in places:
            mixed = (mixed ^ place.astype(np.int32).view(np.uint32)) * np.uint32(0x9E3779B1)
            mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x85EBCA77)
            mixed = mixed ^ (mixed >> np.uint32(13))
        return mixed.astype(np.float32) * np.float32(2**-32)

    def generator(self, name: str) -> np.random.Generator:
        """Random numbers of this window alone, which need not continue beyond its edges."""
        key = zlib.crc32(f"{self.seed}/{name}".encode()), zlib.crc32(f"{self.top}/{self.left}".encode())
        return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))


def spline_weights(places: NDArray[np.floating[Any]]) -> tuple[int, Floats]:
    """Weights that draw a cubic B-spline through values one apart.

    Args:
        places: Where the spline is wanted, ascending; value number n lies at n.

    Returns:
        Number of the first value needed, and the weights, shape (places, values needed).
    """
    before = np.floor(places).astype(np.intp)
    t = places - before
    first = int(before[0]) - 1
    weights = np.zeros((len(places), int(before[-1]) - first + 3), np.float32)
    cubics = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for offset, cubic in enumerate(cubics):
        weights[np.arange(len(places)), before - 1 - first + offset] = cubic / 6
    return first, weights
