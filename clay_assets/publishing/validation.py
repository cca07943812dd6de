"""Find everything that is wrong with a finished published file.

Here belongs walking through the rows and comparing them with what the footer and the name say. The footer by
itself is judged in `footer.py`, a row by itself in `rows.py`. What a fault leads to is for the asset check.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.parquet import DAMAGE, damaged
from clay_assets.publishing.footer import (
    PublishedFile,
    column_faults,
    compression_faults,
    geometry_entry,
    storage_faults,
)
from clay_assets.publishing.names import parse_published_name
from clay_assets.publishing.rows import DEGREE_TOLERANCE, Extent, Fault, row_faults
from clay_assets.publishing.schema import width_of

BATCH_BYTES = 32 * 2**20
"""Of vectors, decoded, that are held at a time."""

CHIP_NUMBER = re.compile(r"_([0-9]+)\.tiff?$")
"""Ends a chip's URL: claytile_27WXN_20200615_v02_0001.tif."""


def validate(
    file: PublishedFile, *, shape: tuple[int, ...] | None = None, name: str | None = None
) -> list[str]:
    """Return everything that is wrong with a published file, a sentence each; empty where nothing is.

    Reads every row, but holds only `BATCH_BYTES` of vectors. Where the columns are not the published ones,
    their values are not looked at.

    Args:
        file: a local path, or a binary file open for reading that can seek.
        shape: what each embedding must have; any where None.
        name: the file's name, whose dates must be those of the rows; not looked at where None.

    Raises:
        OSError: the file can't be opened or its bytes can't be fetched. A damaged file is a sentence instead.
    """
    try:
        # Pre-buffering keeps every row group's compressed pages until the end: 2.2 GB resident for a tile at
        # level group, against 0.4 GB.
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            wrong_columns = column_faults(parquet.schema_arrow, shape)
            entry, wrong_geo = geometry_entry(parquet.metadata.metadata or {})
            faults = [*wrong_columns, *storage_faults(parquet.metadata), *wrong_geo]
            if not wrong_columns:
                faults += _walk(parquet, entry, name)
                faults += compression_faults(parquet.metadata)
    except DAMAGE as error:
        return [str(damaged(error))]
    return faults


@dataclass
class _Seen:
    """What the rows so far have shown."""

    bad_rows: list[Fault] = field(default_factory=list)  # per batch and kind
    misplaced: list[Fault] = field(default_factory=list)
    urls: set[tuple[str, bytes]] = field(default_factory=set)  # with the footprint: a chip has windows
    days: set[date] = field(default_factory=set)
    last: tuple[date, int] = (date.min, -1)  # date and chip number of the row before
    outline: Extent = field(default_factory=Extent)


def _walk(parquet: pq.ParquetFile, entry: dict[str, Any], name: str | None) -> Iterator[str]:
    shape = tuple(parquet.schema_arrow.field("embeddings").type.shape)
    seen = _Seen()
    for batch in parquet.iter_batches(max(1, BATCH_BYTES // (4 * width_of(shape)))):
        bad = list(row_faults(batch))
        seen.bad_rows += bad
        if not bad:
            seen.misplaced += _follow(batch, seen)
            seen.outline.add(batch["geometry"])
    yield from _sentences(seen.bad_rows + seen.misplaced)
    # With bad rows left out, a comparison would judge something other than the file.
    if seen.urls and not seen.bad_rows:
        yield from _outline_faults(seen.outline, entry)
        if name is not None:
            yield from _name_faults(name, min(seen.days), max(seen.days))


def _follow(batch: pa.RecordBatch, seen: _Seen) -> Iterator[Fault]:
    """Yield the rows that stand in the wrong place or stand there twice, and remember the others."""
    columns = (batch[name].to_pylist() for name in ("source_url", "date", "geometry"))
    for url, day, footprint in zip(*columns, strict=True):
        number = CHIP_NUMBER.search(url)
        # A URL without a number takes the place it is given.
        place = (day, int(number[1]) if number else seen.last[1] if day == seen.last[0] else -1)
        if place < seen.last:
            yield Fault("a date or chip number below that of the row before", 1, url)
        if (url, footprint) in seen.urls:
            yield Fault("the source_url and footprint of an earlier row", 1, url)
        seen.last = place
        seen.urls.add((url, footprint))
        seen.days.add(day)


def _sentences(faults: list[Fault]) -> Iterator[str]:
    rows: Counter[str] = Counter()
    first: dict[str, Fault] = {}
    for fault in faults:
        rows[fault.what] += fault.rows
        first.setdefault(fault.what, fault)
    yield from (f"The file has {Fault(what, count, first[what].first)}." for what, count in rows.items())


def _outline_faults(outline: Extent, entry: dict[str, Any]) -> Iterator[str]:
    said = entry.get("bbox")
    try:
        same = np.allclose(
            np.array(said, dtype=float), np.array(outline.bounds), rtol=0, atol=DEGREE_TOLERANCE
        )
    except (TypeError, ValueError):  # not four numbers
        same = False
    if entry and not same:
        yield f"geo: bbox is {said}; the rows' is {list(outline.bounds or ())}."
    types = entry.get("geometry_types")
    if entry and types != sorted(outline.types):
        yield f"geo: geometry_types is {types}; expected {sorted(outline.types)}."
    orientation = entry.get("orientation")
    if orientation is not None and not (orientation == "counterclockwise" and outline.counterclockwise):
        yield f"geo: orientation is {orientation!r}; that does not hold for every polygon."


def _name_faults(name: str, first: date, last: date) -> Iterator[str]:
    parsed = parse_published_name(name)
    if parsed is None:
        yield f"The name {name} is not of the form 27WXN_20200101_20231231_v001.gpq."
    elif (parsed.first, parsed.last) != (first, last):
        yield f"The name {name} says {parsed.first} to {parsed.last}; the rows' dates are {first} to {last}."
