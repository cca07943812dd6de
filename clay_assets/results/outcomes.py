"""The outcome of a chip: a vector for each of its windows, or a skip with its reason."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clay_assets.storage import StoredObject


@dataclass(frozen=True, eq=False)
class Embedded:
    """A chip with a vector for each of its W windows.

    Attributes:
        chip: The object that was read.
        date: Acquisition date.
        footprints: W WKB polygons in OGC:CRS84.
        vectors: (W, …) float32, each of the level's shape.
        thumbnails: W times true colour, `THUMBNAIL_SIZE` pixels square, RGB bytes row by row.
        nodata: Share of the chip's pixels without data, 0 to 1.
    """

    chip: StoredObject
    date: datetime.date
    footprints: Sequence[bytes]
    vectors: NDArray[np.float32]
    thumbnails: Sequence[bytes]
    nodata: float = 0.0


@dataclass(frozen=True)
class Skipped:
    """A chip that cannot be used.

    Attributes:
        chip: The object that was read.
        reason: One of the closed list in `chips.rejection`.
        detail: Got and expected.
    """

    chip: StoredObject
    reason: str
    detail: str


Outcome = Embedded | Skipped


class NoUsableChips(ValueError):
    """A tile has no usable chips, so nothing can be published."""

    concerns_one_tile = True
