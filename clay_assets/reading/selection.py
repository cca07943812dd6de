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
from clay_assets.reading.facts import Facts
from clay_assets.reading.files import SourceFile
from clay_assets.tiles import TILE_CODE

PARTITION = re.compile(r"/grid_zone=(?P<zone>[0-9]{2}[A-Z])/year=(?P<year>[0-9]{4})/")
"""Zone and year in the folders of a compact copy (`export`)."""


@dataclass(frozen=True)
class Selection:
    """A choice of rows; None does not restrict.

    Attributes:
        tiles: MGRS codes.
        bbox: West, south, east, north in degrees; west above east crosses the antimeridian. Rows whose
            footprint touches it match.
        dates: First and last date of acquisition.
        version: Version of published files.
    """

    tiles: frozenset[str] | None = None
    bbox: Bounds | None = None
    dates: tuple[date, date] | None = None
    version: int | None = None

    @classmethod
    def of(
        cls,
        tiles: Collection[str] | None,
        bbox: Bounds | None,
        dates: tuple[date, date] | None,
        version: int | None,
    ) -> "Selection":
        """Validate a caller's choice.

        Raises:
            ValueError: A tile is not an MGRS code, the box is invalid, or the dates are in the wrong order.
        """
        bad = [tile for tile in tiles or () if not TILE_CODE.fullmatch(tile)]
        if isinstance(tiles, str) or bad:
            raise ValueError(f"got tiles {tiles!r}; expected a list of MGRS codes such as ['27WXN']")
        if bbox is not None and not (
            len(bbox) == 4 and np.isfinite(bbox).all() and -90 <= bbox[1] <= bbox[3] <= 90
        ):
            raise ValueError(f"got bbox {bbox!r}; expected (west, south, east, north) in degrees")
        if dates is not None and not dates[0] <= dates[1]:
            raise ValueError(f"got dates {dates[0]} to {dates[1]}; expected the first not after the last")
        return cls(None if tiles is None else frozenset(tiles), bbox, dates, version)

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
        for index in range(group.num_columns):
            chunk = group.column(index)
            if chunk.path_in_schema == "date" or chunk.path_in_schema.startswith("bbox."):
                found = chunk.statistics
                if found is not None and found.has_min_max:
                    ranges[chunk.path_in_schema] = (found.min, found.max)
        if self.dates is not None and "date" in ranges and not _overlap(self.dates, ranges["date"]):
            return False
        edges = [f"bbox.{edge}" for edge in ("xmin", "ymin", "xmax", "ymax")]
        if self.bbox is None or not set(edges) <= set(ranges):
            return True
        xmin, ymin, xmax, ymax = (ranges[edge] for edge in edges)
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
            mask &= _as_mask(pc.match_substring_regex(rows["source_url"], pattern))
        if self.dates is not None:
            first, last = (pa.scalar(day, rows["date"].type) for day in self.dates)
            between = pc.and_(pc.greater_equal(rows["date"], first), pc.less_equal(rows["date"], last))
            mask &= _as_mask(between)
        if self.bbox is not None:
            footprints = shapely.from_wkb(rows["geometry"].to_numpy())
            boxes = shapely.union_all([shapely.box(*box) for box in boxes_of(self.bbox)])
            mask &= shapely.intersects(footprints, boxes)
        return mask


def _as_mask(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = column.fill_null(False).to_numpy()
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
