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
from clay_assets.reading.columns import place_means
from clay_assets.reading.embeddings import ALONGSIDE
from clay_assets.reading.facts import Facts
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import Task, blocks, in_parallel, tasks
from clay_assets.reading.selection import Selection

Place = tuple[float, float]
"""Longitude and latitude in degrees."""

Vectors = NDArray[np.float32]


class ExampleMissing(LookupError):
    """No row has an example's URL, or covers its place."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of examples and counter-examples.

    Attributes:
        rows: Rows of all examples, then of all counter-examples.
        vectors: (N, D) of these rows.
        positive: Number of rows of examples; the others are counter-examples.
    """

    rows: pa.Table
    vectors: Vectors
    positive: int


def find_examples(
    files: Sequence[SourceFile],
    facts: Sequence[Facts],
    *,
    to: Sequence[str],
    at: Sequence[Place],
    day: date | None,
    unlike: Sequence[str],
    dim: int,
) -> Examples:
    """Look up examples; read vectors only of row groups that have one.

    Args:
        files: To search.
        facts: Facts of each file.
        to: URLs of example chips, or their file names.
        at: Places.
        day: Day of the examples; if None, the latest day at each place.
        unlike: URLs of counter-examples, or their file names.
        dim: D.

    Raises:
        ExampleMissing: Names every example that is in no file.
    """
    selection = _ExampleRows(dates=(day, day) if day else None, names=(*to, *unlike), places=tuple(at))
    rows, vectors = _candidates(files, facts, selection, dim)
    urls = rows["source_url"].to_pylist()

    def of_name(name: str) -> list[int]:
        return [row for row, url in enumerate(urls) if _is_named(url, (name,))]

    examples = [(name, of_name(name)) for name in to]
    examples += [(f"{lon:g},{lat:g}", _of_place(rows, (lon, lat))) for lon, lat in at]
    counter_examples = [(name, of_name(name)) for name in unlike]
    missing = [name for name, found in examples + counter_examples if not found]
    if missing:
        when = f" on {day}" if day else ""
        raise ExampleMissing(
            f"no embedding{when} of {', '.join(missing)} in {len(files)} files; expected the source_url of a"
            " row, its file name, or a place that a row's footprint covers"
        )
    order = [row for _, found in examples + counter_examples for row in found]
    positive = sum(len(found) for _, found in examples)
    return Examples(rows.take(pa.array(order, pa.int64())), vectors[order], positive)


@dataclass(frozen=True)
class _ExampleRows(Selection):
    """Rows with one of the names, and rows that cover one of the places."""

    names: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()

    def may_hold(self, file: SourceFile, facts: Facts) -> bool:
        """Return whether a file can have an example, by its tile (which chip names include) or its bounds."""
        published = parse_published_name(file.name)
        tiles = {match[1] if (match := CHIP_NAME.search(name)) else None for name in self.names}
        if tiles and (published is None or tiles & {published.tile, None}):
            return True
        return any(Selection(bbox=(*place, *place)).may_be_in(facts) for place in self.places)

    @property
    def columns(self) -> list[str]:
        """All columns: a row matches by its name or by its footprint."""
        return list(ALONGSIDE)

    def matches(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Return which rows may be an example."""
        mask = np.array([_is_named(url, self.names) for url in rows["source_url"].to_pylist()], dtype=bool)
        if self.places:
            footprints = shapely.from_wkb(rows["geometry"].to_numpy())
            for place in self.places:
                mask |= shapely.intersects_xy(footprints, *place)
        return mask & super().matches(rows)


def _candidates(
    files: Sequence[SourceFile], facts: Sequence[Facts], selection: _ExampleRows, dim: int
) -> tuple[pa.Table, Vectors]:
    """Return all rows that may be an example, with their vectors."""

    def read(task: Task) -> list[tuple[pa.Table, Vectors]]:
        found = blocks(task, ALONGSIDE, selection)
        return [(block.rows, place_means(block.vectors, dim)) for block in found]

    chosen = [
        task
        for file, fact in zip(files, facts, strict=True)
        if selection.may_have(file) and selection.may_hold(file, fact)
        for task in tasks([file], [fact])
    ]
    found = [pair for piece in in_parallel(read, chosen) for pair in piece]
    schema = pa.schema([("source_url", pa.string()), ("date", pa.date32()), ("geometry", pa.binary())])
    rows = pa.concat_tables(
        [schema.empty_table(), *(rows for rows, _ in found)], promote_options="permissive"
    )
    return rows, np.concatenate([np.empty((0, dim), np.float32), *(vectors for _, vectors in found)])


def _is_named(url: str, names: Sequence[str]) -> bool:
    return any(url == name or url.endswith(f"/{name}") for name in names)


def _of_place(rows: pa.Table, place: Place) -> list[int]:
    """Return the row of the latest day that covers a place; of several, the one with the nearest centre."""
    footprints, days = shapely.from_wkb(rows["geometry"].to_numpy()), rows["date"].to_pylist()
    covering = np.flatnonzero(shapely.intersects_xy(footprints, *place)).tolist()
    latest = max((days[row] for row in covering), default=None)

    def distance(row: int) -> float:
        return float(shapely.distance(middle_of(footprints[row]), shapely.Point(place)))

    return [min((row for row in covering if days[row] == latest), key=distance)] if covering else []


def middle_of(footprint: shapely.Geometry) -> shapely.Point:
    """Return the centre of a footprint; of one cut by the antimeridian, the centre of the larger part."""
    middle: shapely.Point = max(shapely.get_parts(footprint), key=shapely.area).centroid
    return middle
