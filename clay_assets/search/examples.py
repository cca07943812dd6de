"""Examples become rows: chips named by their URL, or by a place and a date.

A `source_url` need not be unique: a network may look at several windows of one chip. All rows of a URL are
examples then; of a place, the one row whose middle is nearest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from clay_assets.chips.name import CHIP_NAME
from clay_assets.publishing import parse_published_name
from clay_assets.reading.columns import place_means
from clay_assets.reading.embeddings import ALONGSIDE
from clay_assets.reading.facts import Facts
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import Block, Task, at_once, blocks, tasks
from clay_assets.reading.selection import Selection

Place = tuple[float, float]
"""Longitude and latitude in degrees."""


class ExampleMissing(LookupError):
    """No row has an example's URL, or covers its place."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What is searched for.

    Attributes:
        rows: Of all examples, then all counter-examples.
        vectors: (N, D) of these rows.
        wanted: How many of them are examples; the others are counter-examples.
    """

    rows: pa.Table
    vectors: NDArray[np.float32]
    wanted: int


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
    """Look examples up; vectors are read only of the row groups that have one.

    Args:
        files: To look in.
        facts: Of each file.
        to: URLs of example chips, or their file names.
        at: Places.
        day: Of the examples; for a place without one, the latest day counts.
        unlike: URLs of counter-examples, or their file names.
        dim: D.

    Raises:
        ExampleMissing: Naming every example that is in no file.
    """
    candidates = _candidates(files, facts, [*to, *unlike], at, day, dim)
    good = [_of_url(candidates, url) for url in to] + [_of_place(candidates, place, day) for place in at]
    bad = [_of_url(candidates, url) for url in unlike]
    sought = [*to, *(f"{lon:g},{lat:g}" for lon, lat in at), *unlike]
    missing = [what for what, block in zip(sought, [*good, *bad], strict=True) if not len(block.rows)]
    if missing:
        when = f" on {day}" if day else ""
        raise ExampleMissing(
            f"no embedding{when} of {', '.join(missing)} in {len(files)} files; expected the source_url of a"
            " row, its file name, or a place that a row's outline covers"
        )
    rows = pa.concat_tables([block.rows for block in good + bad])
    vectors = np.concatenate([block.vectors for block in good + bad])
    return Examples(rows, vectors, sum(len(block.rows) for block in good))


def _candidates(
    files: Sequence[SourceFile],
    facts: Sequence[Facts],
    names: Sequence[str],
    places: Sequence[Place],
    day: date | None,
    dim: int,
) -> Block:
    """All rows that may be an example."""
    chosen = _ExampleRows(dates=(day, day) if day else None, names=tuple(names), places=tuple(places))
    near = [
        pair for pair in zip(files, facts, strict=True) if chosen.may_have(pair[0]) and chosen.is_near(*pair)
    ]

    def look(task: Task) -> list[Block]:
        return [
            Block(block.rows, place_means(block.vectors, dim)) for block in blocks(task, ALONGSIDE, chosen)
        ]

    searched = tasks([file for file, _ in near], [fact for _, fact in near])
    found = [block for piece in at_once(look, searched) for block in piece]
    schema = pa.schema([("source_url", pa.string()), ("date", pa.date32()), ("geometry", pa.binary())])
    rows = pa.concat_tables([schema.empty_table(), *(b.rows for b in found)], promote_options="permissive")
    vectors = np.concatenate([np.empty((0, dim), np.float32), *(block.vectors for block in found)])
    return Block(rows, vectors)


@dataclass(frozen=True)
class _ExampleRows(Selection):
    """Rows of these names, and rows that cover one of these places."""

    names: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()

    def is_near(self, file: SourceFile, facts: Facts) -> bool:
        """Whether a file can hold an example: by its tile, which chips' names say too, or by its bounds."""
        published = parse_published_name(file.name)
        tiles = {match[1] if (match := CHIP_NAME.search(name)) else None for name in self.names}
        if tiles and (published is None or tiles & {published.tile, None}):
            return True
        return any(Selection(bbox=(*place, *place)).may_be_in(facts) for place in self.places)

    @property
    def columns(self) -> list[str]:
        """All of them: names and places are alternatives."""
        return list(ALONGSIDE)

    def matches(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Which rows may be an example."""
        mask = np.array([_is_named(url, self.names) for url in rows["source_url"].to_pylist()], dtype=bool)
        if self.places:
            outlines = shapely.from_wkb(rows["geometry"].to_numpy())
            for place in self.places:
                mask |= shapely.intersects_xy(outlines, *place)
        return mask & super().matches(rows)


def _is_named(url: str, names: Sequence[str]) -> bool:
    return any(url == name or url.endswith(f"/{name}") for name in names)


def _of_url(candidates: Block, name: str) -> Block:
    return _only(candidates, [_is_named(url, (name,)) for url in candidates.rows["source_url"].to_pylist()])


def _of_place(candidates: Block, place: Place, day: date | None) -> Block:
    """The row that covers a place, of the latest day if none is asked for, and with the nearest middle."""
    outlines = shapely.from_wkb(candidates.rows["geometry"].to_numpy())
    covering = np.flatnonzero(shapely.intersects_xy(outlines, *place))
    if not len(covering):
        return _only(candidates, [])
    days = candidates.rows["date"].to_pylist()
    latest = day or max(days[row] for row in covering)
    nearest = min(
        (row for row in covering if days[row] == latest),
        key=lambda row: shapely.distance(middle_of(outlines[row]), shapely.Point(place)),
    )
    return _only(candidates, [row == nearest for row in range(len(days))])


def middle_of(outline: shapely.Geometry) -> shapely.Point:
    """Middle of a footprint; of one that the antimeridian cuts in two, of the larger part."""
    middle: shapely.Point = max(shapely.get_parts(outline), key=shapely.area).centroid
    return middle


def _only(block: Block, mask: Sequence[bool] | Iterator[bool]) -> Block:
    kept = np.flatnonzero(np.fromiter(mask, dtype=bool))
    return Block(block.rows.take(pa.array(kept, pa.int64())), block.vectors[kept])
