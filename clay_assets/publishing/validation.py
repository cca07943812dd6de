"""Finds all faults of a published file: compares its rows with its footer and its name."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
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

BATCH_BYTES = 32 * 2**20
"""Maximum bytes of decoded vectors in memory."""

CHIP_NUMBER = re.compile(r"_([0-9]+)\.tiff?$")
"""Ends a chip's URL: claytile_27WXN_20200615_v02_0001.tif."""


def validate(
    file: PublishedFile, *, shape: tuple[int, ...] | None = None, name: str | None = None
) -> list[str]:
    """Return all faults of a published file, one sentence each.

    Reads every row, but holds only `BATCH_BYTES` of vectors. Rows are checked only if the columns are the
    published ones.

    Args:
        file: A local path, or a seekable binary file open for reading.
        shape: Shape of each embedding; None: any.
        name: The file's name, whose dates must be those of the rows; None: not checked.

    Raises:
        OSError: The file can't be opened or its bytes can't be fetched. A damaged file is reported as a
            fault.
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
    """State accumulated over the rows so far."""

    faults: dict[str, Fault] = field(default_factory=dict)  # by kind
    bad_rows: bool = False  # some rows are invalid by themselves
    urls: set[tuple[str, bytes]] = field(default_factory=set)  # URL and footprint of each row
    dates: set[date] = field(default_factory=set)
    last: tuple[date, int] = (date.min, -1)  # date and chip number of the row before
    extent: Extent = field(default_factory=Extent)

    def add(self, fault: Fault) -> None:
        """Add a fault's rows to those of its kind."""
        before = self.faults.get(fault.what, Fault(fault.what, 0, fault.first))
        self.faults[fault.what] = replace(before, rows=before.rows + fault.rows)


def _walk(parquet: pq.ParquetFile, entry: dict[str, Any], name: str | None) -> Iterator[str]:
    width = math.prod(parquet.schema_arrow.field("embeddings").type.shape)
    seen = _Seen()
    for batch in parquet.iter_batches(max(1, BATCH_BYTES // (4 * width))):
        bad = list(row_faults(batch))
        for fault in bad or _misplaced(batch, seen):
            seen.add(fault)
        seen.bad_rows |= bool(bad)
        if not bad:
            seen.extent.add(batch["geometry"])
    yield from (f"The file has {fault}." for fault in seen.faults.values())
    # With bad rows left out, the rest can't be compared with footer and name.
    if seen.urls and not seen.bad_rows:
        yield from _extent_faults(seen.extent, entry)
        if name is not None:
            yield from _name_faults(name, min(seen.dates), max(seen.dates))


def _misplaced(batch: pa.RecordBatch, seen: _Seen) -> Iterator[Fault]:
    """Yield rows in the wrong order and duplicate rows."""
    columns = (batch[name].to_pylist() for name in ("source_url", "date", "geometry"))
    for url, day, footprint in zip(*columns, strict=True):
        number = CHIP_NUMBER.search(url)
        # A URL without a number may be anywhere within its date.
        place = (day, int(number[1]) if number else seen.last[1] if day == seen.last[0] else -1)
        if place < seen.last:
            yield Fault("a date or chip number below that of the row before", 1, url)
        if (url, footprint) in seen.urls:
            yield Fault("the source_url and footprint of an earlier row", 1, url)
        seen.last = place
        seen.urls.add((url, footprint))
        seen.dates.add(day)


def _extent_faults(extent: Extent, entry: dict[str, Any]) -> Iterator[str]:
    if not entry:
        return
    bbox, types, orientation = entry.get("bbox"), entry.get("geometry_types"), entry.get("orientation")
    try:
        same = np.allclose(np.array(bbox, float), np.array(extent.bounds), rtol=0, atol=DEGREE_TOLERANCE)
    except (TypeError, ValueError):  # not four numbers
        same = False
    if not same:
        yield f"geo: bbox is {bbox}; the rows' is {list(extent.bounds or ())}."
    if types != sorted(extent.types):
        yield f"geo: geometry_types is {types}; expected {sorted(extent.types)}."
    if orientation is not None and not (orientation == "counterclockwise" and extent.counterclockwise):
        yield f"geo: orientation is {orientation!r}; that is not true of every polygon."


def _name_faults(name: str, first: date, last: date) -> Iterator[str]:
    parsed = parse_published_name(name)
    if parsed is None:
        yield f"The name {name} is not of the form 27WXN_20200101_20231231_v001.gpq."
    elif (parsed.first, parsed.last) != (first, last):
        yield f"The name {name} says {parsed.first} to {parsed.last}; the rows' dates are {first} to {last}."
