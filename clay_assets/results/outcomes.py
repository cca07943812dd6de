"""The outcome of a chip (vectors of its windows, or a skip with its reason), and the rows that store it."""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clay_assets.chips import READER_VERSION
from clay_assets.storage import StoredObject

THUMBNAIL_SIZE = 16
"""Pixels along the side of a chip's true-colour thumbnail: 22 x 22 chips, a tile, are 352 pixels wide."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """A chip with a vector for each of its W windows."""

    chip: StoredObject  # the object that was read
    date: datetime.date  # of the acquisition
    footprints: Sequence[bytes]  # W WKB polygons in OGC:CRS84
    vectors: NDArray[np.float32]  # (W, …), each of the level's shape
    thumbnails: Sequence[bytes]  # W times true colour, `THUMBNAIL_SIZE` pixels square, RGB bytes row by row
    nodata: float = 0.0  # share of the chip's pixels without data, 0 to 1


@dataclass(frozen=True)
class Skipped:
    """A chip that cannot be used."""

    chip: StoredObject  # the object that was read
    reason: str  # one of the closed list in `chips.rejection`
    detail: str  # got and expected


Outcome = Embedded | Skipped


class NoUsableChips(ValueError):
    """A tile has no usable chips, so nothing can be published."""


def results_schema(width: int) -> pa.Schema:
    """Return the columns of results with embeddings of `width` numbers."""
    return pa.schema(
        [
            pa.field("source_url", pa.string(), nullable=False),
            pa.field("etag", pa.string(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("window", pa.int16(), nullable=False),  # of the chip, row by row from 0
            # Of embedded chips:
            pa.field("date", pa.date32()),
            pa.field("embeddings", pa.list_(pa.float32(), width)),
            pa.field("geometry", pa.binary()),  # WKB polygon in OGC:CRS84
            pa.field("nodata", pa.float32()),  # share of its pixels without data, 0 to 1
            pa.field("thumbnail", pa.binary(3 * THUMBNAIL_SIZE**2)),  # RGB bytes, row by row
            # Of skipped chips:
            pa.field("reason", pa.string()),
            pa.field("detail", pa.string()),
            pa.field("reader", pa.int16(), nullable=False),  # READER_VERSION that the chip was read with
        ]
    )


def rows_of(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Yield the rows of a chip: one for each window of an embedded chip, one for a skipped chip."""
    chip = outcome.chip
    row: dict[str, Any] = {"source_url": chip.url, "etag": chip.etag, "size": chip.size}
    row |= {"reader": READER_VERSION, "reason": None}
    if isinstance(outcome, Skipped):
        yield {**row, "window": 0, "reason": outcome.reason, "detail": outcome.detail}
        return
    row |= {"date": outcome.date, "nodata": outcome.nodata}
    windows = zip(outcome.footprints, outcome.vectors, outcome.thumbnails, strict=True)
    for window, (footprint, vector, thumbnail) in enumerate(windows):
        image = {"geometry": footprint, "embeddings": vector.reshape(-1), "thumbnail": thumbnail}
        yield {**row, **image, "window": window}
