"""Selects files, row groups and rows by tiles, a bounding box and dates.

From coarse to fine; each step avoids the reading of the next one: the file's name, its footer, a row group's
statistics, the rows' dates and footprints. Vectors are read last (`scan.py`).
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from clay_assets.publishing.schema import Bounds, parse_published_name
from clay_assets.reading.files import Facts, SourceFile
from clay_assets.tiles import TILE_CODE

# Folders of a compact copy (`export`), and its columns of the rows' bounds.
PARTITION = re.compile(r"/grid_zone=(?P<zone>[0-9]{2}[A-Z])/year=(?P<year>[0-9]{4})/")
BBOX_EDGES = [f"bbox.{edge}" for edge in ("xmin", "ymin", "xmax", "ymax")]


@dataclass
class Selection:
    """A choice of rows; None does not restrict. Raises ValueError if it is invalid."""

    tiles: Collection[str] | None = None  # MGRS codes
    bbox: Bounds | None = None  # west above east across the antimeridian; touching footprints match
    dates: tuple[date, date] | None = None  # first and last day of acquisition
    version: int | None = None  # of the published files

    def __post_init__(self) -> None:
        if self.tiles is not None:
            if isinstance(self.tiles, str) or not all(map(TILE_CODE.fullmatch, self.tiles)):
                raise ValueError(f"got tiles {self.tiles!r}; expected a list of MGRS codes such as ['27WXN']")
            self.tiles = frozenset(self.tiles)
        if (box := self.bbox) is not None and not (
            len(box) == 4 and np.isfinite(box).all() and -90 <= box[1] <= box[3] <= 90
        ):
            raise ValueError(f"got bbox {box!r}; expected (west, south, east, north) in degrees")
        if self.dates is not None and self.dates[0] > self.dates[1]:
            first, last = self.dates
            raise ValueError(f"got dates {first} to {last}; expected the first not after the last")

    def may_have(self, file: SourceFile) -> bool:
        """Return whether a file can have matching rows, by its name and folders."""
        name = parse_published_name(file.name)
        if name is not None:
            return (
                (self.version is None or name.version == self.version)
                and (self.tiles is None or name.tile in self.tiles)
                and (self.dates is None or _overlap(self.dates, (name.first, name.last)))
            )
        part = PARTITION.search(file.url)
        return part is None or (
            (self.tiles is None or part["zone"] in {tile[:3] for tile in self.tiles})
            and (self.dates is None or self.dates[0].year <= int(part["year"]) <= self.dates[1].year)
        )

    def may_be_in(self, facts: Facts) -> bool:
        """Return whether a file can have matching rows, by its footer."""
        return self.bbox is None or facts.bounds is None or _touch(self.bbox, facts.bounds)

    def may_be_in_group(self, group: pq.RowGroupMetaData) -> bool:
        """Return whether a row group can have matching rows, by its statistics; True if it has none."""
        ranges = {}
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema in ("date", *BBOX_EDGES):
                found = chunk.statistics
                if found is not None and found.has_min_max:
                    ranges[chunk.path_in_schema] = (found.min, found.max)
        if self.dates is not None and "date" in ranges and not _overlap(self.dates, ranges["date"]):
            return False
        if self.bbox is None or not set(BBOX_EDGES) <= set(ranges):
            return True
        xmin, ymin, xmax, ymax = (ranges[edge] for edge in BBOX_EDGES)
        return _touch(self.bbox, (xmin[0], ymin[0], xmax[1], ymax[1]))

    @property
    def columns(self) -> list[str]:
        """The columns that decide whether a row matches; none if all rows match."""
        choices = {"source_url": self.tiles, "date": self.dates, "geometry": self.bbox}
        return [name for name, choice in choices.items() if choice is not None]

    def matches(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Return which rows of a table with the columns `columns` match."""
        mask = np.ones(len(rows), dtype=bool)
        if self.tiles is not None:
            # A chip's URL has the tile as a folder and in its name.
            pattern = f"(^|[/_])({'|'.join(sorted(self.tiles)) or '$^'})[/_]"
            mask &= pc.match_substring_regex(rows["source_url"], pattern).fill_null(False).to_numpy()
        if self.dates is not None:
            first, last = map(np.datetime64, self.dates)
            days = rows["date"].to_numpy()  # null: NaT, which is in no range
            mask &= (first <= days) & (days <= last)
        if self.bbox is not None:
            footprints = shapely.from_wkb(rows["geometry"].to_numpy())
            boxes = shapely.union_all([shapely.box(*box) for box in boxes_of(self.bbox)])
            mask &= shapely.intersects(footprints, boxes)
        return mask


def _overlap(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    return bool(one[0] <= other[1] and other[0] <= one[1])


def boxes_of(bbox: Bounds) -> list[Bounds]:
    """Split a box at the antimeridian if west is above east."""
    west, south, east, north = bbox
    if west <= east:
        return [bbox]
    return [(west, south, 180.0, north), (-180.0, south, east, north)]


def _touch(bbox: Bounds, extent: Bounds) -> bool:
    return any(
        _overlap((box[0], box[2]), (other[0], other[2])) and _overlap((box[1], box[3]), (other[1], other[3]))
        for box in boxes_of(bbox)
        for other in boxes_of(extent)
    )
