"""What can become of a chip: a vector, or a skip with its reason. Every chip of an inventory becomes one."""

import datetime
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clay_assets.storage import StoredObject


@dataclass(frozen=True, eq=False)
class Embedded:
    """A chip that became a vector.

    Attributes:
        chip: The object it was read from.
        date: Acquisition date.
        footprint: WKB polygon in OGC:CRS84.
        vector: float32, of the level's shape.
        nodata: Share of its pixels without data, 0 to 1.
        thumbnail: True colour, `THUMBNAIL_SIZE` pixels square, RGB bytes row by row.
    """

    chip: StoredObject
    date: datetime.date
    footprint: bytes
    vector: NDArray[np.float32]
    thumbnail: bytes
    nodata: float = 0.0


@dataclass(frozen=True)
class Skipped:
    """A chip that cannot be used.

    Attributes:
        chip: The object it was read from.
        reason: One of the closed list in `chips.rejection`.
        detail: What was got and what was expected.
    """

    chip: StoredObject
    reason: str
    detail: str


Outcome = Embedded | Skipped


class NoUsableChips(ValueError):
    """A tile has no chips, or none that can be used: nothing of it can be published."""

    concerns_one_tile = True
