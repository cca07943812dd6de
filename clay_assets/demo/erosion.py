"""Valleys as running water cuts them: branching, steep at the top, ever flatter downstream.

Here: a grid whose cells each drain into one neighbour, and the heights at which the slopes fit the water.
Not here: how easily each place erodes, and what is made of the heights (see `relief`).

The law is that of the stream power model at rest, slope = steepness x (drained area)^-0.4, e.g. Whipple and
Tucker, 1999 (doi:10.1029/1999JB900120). Sums along all paths are found by pointer doubling, a few array
operations each, where a loop over cells in the order of their heights would be slow in Python.
"""

import numpy as np
from numpy.typing import NDArray

from clay_assets.demo.noise import Floats

CONCAVITY = 0.4
"""How fast slopes decline as the drained area grows."""

STEEPEST = 0.62
"""Slope of the steepest hillside: debris does not lie on steeper ones."""

_STEPS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]

Cells = NDArray[np.intp]


def erode(outlets: NDArray[np.bool_], steepness: Floats, cell: float, passes: int = 25) -> Floats:
    """Heights of a landscape that rivers have cut to rest. Its edges join: it can be laid side by side.

    Args:
        outlets: Square grid, true where the water leaves at height 0.
        steepness: Slope where 1 km² drains through a place, same shape.
        cell: Side of a cell in metres.
        passes: How often the water may look for a better way.

    Returns:
        Heights in metres, same shape.
    """
    cells = np.arange(outlets.size).reshape(outlets.shape)
    neighbours = np.stack([np.roll(cells, (-down, -right), (0, 1)) for down, right in _STEPS])
    distances = (cell * np.hypot(*np.array(_STEPS, np.float32).T)).astype(np.float32)
    heights = _first_heights(outlets, steepness, distances)
    for _ in range(passes):
        slopes = (heights - heights.ravel()[neighbours]) / distances[:, None, None]
        steepest = slopes.argmax(0)
        downstream = np.take_along_axis(neighbours, steepest[None], 0)[0]
        area = _drained_cells(downstream, outlets) * (cell / 1000) ** 2
        rise = np.minimum(steepness * area**-CONCAVITY, STEEPEST) * distances[steepest]
        heights = _sums_downstream(np.where(outlets, 0, rise), downstream, outlets)
    return heights


def _first_heights(outlets: NDArray[np.bool_], steepness: Floats, distances: Floats) -> Floats:
    """Heights without hollows to begin with: the way to an outlet, over ground of uneven hardness."""
    random = np.random.Generator(np.random.Philox(key=0))
    hardness = steepness * np.exp(0.5 * random.standard_normal(steepness.shape, np.float32))
    heights = np.where(outlets, np.float32(0), np.float32(np.inf))
    while True:
        before = heights
        for step, distance in zip(_STEPS, distances, strict=True):
            heights = np.minimum(heights, np.roll(heights, step, (0, 1)) + distance * hardness)
        if np.array_equal(before, heights):
            return heights


def _drained_cells(downstream: Cells, outlets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How many cells drain through each, itself included."""
    sink = outlets.size  # one more cell, which all outlets drain into
    ahead = np.append(np.where(outlets, sink, downstream), sink)
    drained = np.ones(sink + 1)
    drained[sink] = 0
    while (ahead != sink).any():
        drained += np.bincount(ahead, drained, sink + 1)
        drained[sink] = 0
        ahead = ahead[ahead]
    return drained[:sink].reshape(outlets.shape)


def _sums_downstream(values: Floats, downstream: Cells, outlets: NDArray[np.bool_]) -> Floats:
    """Sum of the values of each cell and of all that its water passes."""
    sink = outlets.size
    ahead = np.append(np.where(outlets, sink, downstream), sink)
    sums = np.append(values, 0).astype(np.float64)
    while (ahead != sink).any():
        sums += sums[ahead]
        ahead = ahead[ahead]
    return sums[:sink].reshape(outlets.shape).astype(np.float32)
