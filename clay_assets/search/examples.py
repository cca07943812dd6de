"""Looks up examples: chips named by their URL, or by a place and a date.

Several rows may have one `source_url`: a network may see several windows of a chip. An example by URL means
all of them, an example by place the row with the nearest centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from clay_assets.chips.reading import CHIP_NAME
from clay_assets.publishing.schema import parse_published_name
from clay_assets.reading.files import Facts
from clay_assets.reading.scan import OTHERS, Block, read_all
from clay_assets.reading.selection import Selection
from clay_assets.search.similarity import place_means

Place = tuple[float, float]
"""Longitude and latitude in degrees."""


class ExampleMissing(LookupError):
    """No row has an example's URL, or covers its place."""


@dataclass
class Query(Selection):
    """Examples and counter-examples; selects the rows that may be one of them."""

    to: Sequence[str] = ()  # URLs of example chips, or their file names
    at: Sequence[Place] = ()  # each means the row that covers it
    day: date | None = None  # of the examples; None: the latest day at each place
    unlike: Sequence[str] = ()  # counter-examples, named as in `to`

    def __post_init__(self) -> None:
        if not (self.to or self.at or self.unlike):
            raise ValueError("got no example; expected a chip in `to` or `unlike`, or a place in `at`")
        for lon, lat in self.at:
            if not (-180 <= lon <= 180 and -90 <= lat <= 90):
                raise ValueError(f"got the place {lon:g},{lat:g}; expected longitude, latitude in degrees")
        self.dates = (self.day, self.day) if self.day else None
        super().__post_init__()

    def may_be_in(self, facts: Facts) -> bool:
        """Return whether a file can have an example, by its tile (which chip names include) or its bounds."""
        published = parse_published_name(facts.file.name)
        named = [CHIP_NAME.search(name) for name in (*self.to, *self.unlike)]
        tiles = {match[1] if match else None for match in named}
        if tiles and (published is None or tiles & {published.tile, None}):
            return True
        return any(Selection(bbox=(*place, *place)).may_be_in(facts) for place in self.at)

    @property
    def columns(self) -> list[str]:
        """All columns: a row matches by its name or by its footprint."""
        return OTHERS.names

    def matches(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Return which rows may be an example."""
        names = (*self.to, *self.unlike)
        mask = np.array([_is_named(url, names) for url in rows["source_url"].to_pylist()], dtype=bool)
        if self.at:
            footprints = shapely.from_wkb(rows["geometry"].to_numpy())
            for place in self.at:
                mask |= shapely.intersects_xy(footprints, *place)
        return mask & super().matches(rows)


def find_examples(files: Sequence[Facts], query: Query, dim: int) -> tuple[Block, int]:
    """Return the rows of all examples, then of all counter-examples; and the number of rows of examples.

    The vectors are the means (N, D) over the places of a row, `dim` is D. Reads vectors only of row groups
    that have an example. ExampleMissing names every example that is in no file.
    """
    rows, vectors = read_all(files, OTHERS.names, query, reduce=lambda wide: place_means(wide, dim))
    urls = rows["source_url"].to_pylist()

    def of_name(name: str) -> list[int]:
        return [row for row, url in enumerate(urls) if _is_named(url, (name,))]

    examples = [(name, of_name(name)) for name in query.to]
    examples += [(f"{lon:g},{lat:g}", _of_place(rows, (lon, lat))) for lon, lat in query.at]
    counter_examples = [(name, of_name(name)) for name in query.unlike]
    missing = [name for name, found in examples + counter_examples if not found]
    if missing:
        when = f" on {query.day}" if query.day else ""
        raise ExampleMissing(
            f"no embedding{when} of {', '.join(missing)} in {len(files)} files; expected the source_url of a"
            " row, its file name, or a place that a row's footprint covers"
        )
    order = [row for _, found in examples + counter_examples for row in found]
    return Block(rows.take(order), vectors[order]), sum(len(found) for _, found in examples)


def _is_named(url: str, names: Sequence[str]) -> bool:
    return any(url == name or url.endswith(f"/{name}") for name in names)


def _of_place(rows: pa.Table, place: Place) -> list[int]:
    """Return the row of the latest day that covers a place; of several, the one with the nearest centre."""
    footprints, days = shapely.from_wkb(rows["geometry"].to_numpy()), rows["date"].to_pylist()
    covering = np.flatnonzero(shapely.intersects_xy(footprints, *place)).tolist()

    def rank(row: int) -> tuple[int, float]:
        return -days[row].toordinal(), middle_of(footprints[row]).distance(shapely.Point(place))

    return sorted(covering, key=rank)[:1]


def middle_of(footprint: shapely.Geometry) -> shapely.Point:
    """Return the centre of a footprint; of one cut by the antimeridian, the centre of the larger part."""
    return max(shapely.get_parts(footprint), key=shapely.area).centroid
