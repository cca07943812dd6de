"""Finds all faults of a published file: of its footer, its rows, and its name."""

import functools
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj

from clay_assets.parquet import DAMAGE, damaged
from clay_assets.publishing.rows import DEGREE_TOLERANCE, Extent, described, row_faults
from clay_assets.publishing.schema import (
    COLUMNS,
    CRS,
    GEOPARQUET_VERSION,
    PREFIX,
    PROVENANCE,
    PublishedFile,
    parse_published_name,
    provenance_in,
    published_schema,
)

BATCH_BYTES = 32 * 2**20  # maximum of decoded vectors in memory
CHIP_NUMBER = re.compile(r"_([0-9]+)\.tiff?$")  # ends a chip's URL: claytile_27WXN_20200615_v02_0001.tif

Row = tuple[str, date, bytes]  # source_url, date and geometry


def validate(file: PublishedFile, *, name: str | None = None) -> list[str]:
    """Return all faults of a published file, one sentence each.

    Reads every row, but holds only `BATCH_BYTES` of vectors. Rows are checked only if the columns are the
    published ones.

    Args:
        file: A local path, or a seekable binary file open for reading.
        name: The file's name, whose dates must be those of the rows; None: not checked.

    Raises:
        OSError: The file can't be opened or its bytes can't be fetched. A damaged file is reported as a
            fault.
    """
    try:
        # Pre-buffering keeps every row group's compressed pages until the end: 2.2 GB resident for a tile at
        # level group, against 0.4 GB.
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            columns, others, entry = _examine_footer(parquet)
            faults = columns + others
            if not columns:
                faults += _faults_of_rows(parquet, entry, name)
                faults += _compression_faults(parquet.metadata)
    except DAMAGE as error:
        return [str(damaged(error))]
    return faults


def footer_faults(parquet: pq.ParquetFile) -> list[str]:
    """Return the faults of a footer: columns, number of rows, provenance, `geo`."""
    columns, others, _ = _examine_footer(parquet)
    return columns + others


def _examine_footer(parquet: pq.ParquetFile) -> tuple[list[str], list[str], dict[str, Any]]:
    """Return the faults of the columns, all other faults, and the `geo` entry of column geometry."""
    metadata = parquet.metadata
    rows = [] if metadata.num_rows else ["The file has no rows."]
    entry, geo = _geometry_entry(metadata)
    return _column_faults(parquet.schema_arrow), [*rows, *_provenance_faults(metadata), *geo], entry


def _provenance_faults(metadata: pq.FileMetaData) -> list[str]:
    try:
        provenance = provenance_in(metadata)
    except UnicodeDecodeError as error:  # the rest of the file may be sound, and is validated too
        return [f"The footer's provenance is not UTF-8 ({error})."]
    missing = [PREFIX + name for name in PROVENANCE if not provenance.get(name)]
    return [f"The footer lacks {', '.join(missing)}."] if missing else []


def _column_faults(schema: pa.Schema) -> list[str]:
    if tuple(schema.names) != COLUMNS:
        return [f"The columns are {', '.join(schema.names)}; expected {', '.join(COLUMNS)}."]
    tensor = schema.field("embeddings").type
    shape = tuple(tensor.shape) if isinstance(tensor, pa.FixedShapeTensorType) else ()
    has_numbers = bool(shape) and min(shape) > 0
    published = published_schema(shape if has_numbers else (1,))
    expected: dict[str, Any] = dict(zip(COLUMNS, published.types, strict=True))
    wrong = [(column.name, column.type) for column in schema if column.type != expected[column.name]]
    if not has_numbers:
        expected["embeddings"] = "a fixed_shape_tensor of float, each dimension 1 or more"
    return [f"Column {name} has type {got}; expected {expected[name]}." for name, got in wrong]


def _geometry_entry(metadata: pq.FileMetaData) -> tuple[dict[str, Any], list[str]]:
    """Return the `geo` metadata's entry for column geometry (empty if there is none) and its faults."""
    pairs = metadata.metadata or {}
    if b"geo" not in pairs:
        return {}, ["The file has no geo metadata: it is not a GeoParquet file."]
    try:
        geo = json.loads(pairs[b"geo"])
        (column, entry), *others = geo["columns"].items()
        if column != "geometry" or others or not isinstance(entry, dict):
            raise ValueError(f"it describes columns {', '.join(geo['columns'])}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, [f"The geo metadata is not that of one column named geometry ({error!r})."]
    expected = [
        ("version", geo.get("version"), GEOPARQUET_VERSION),
        ("primary_column", geo.get("primary_column"), "geometry"),
        ("encoding", entry.get("encoding"), "WKB"),
        ("edges", entry.get("edges", "planar"), "planar"),
    ]
    faults = [f"geo: {key} is {got!r}; expected {right!r}." for key, got, right in expected if got != right]
    if "crs" in entry and not _is_crs84(json.dumps(entry["crs"])):  # a missing crs means OGC:CRS84
        faults.append(f"geo: crs is not {CRS}.")
    return entry, faults


@functools.lru_cache(maxsize=4)
def _is_crs84(projjson: str) -> bool:
    """Return whether a CRS as JSON is OGC:CRS84; cached, because PROJ takes longer than reading a footer."""
    try:
        return bool(pyproj.CRS.from_user_input(json.loads(projjson)) == pyproj.CRS.from_user_input(CRS))
    except pyproj.exceptions.CRSError:  # null, or JSON that is not a CRS
        return False


def _compression_faults(metadata: pq.FileMetaData) -> list[str]:
    """Return the faults of the compression of a file whose columns have all been read.

    PyArrow (26) crashes the process on access to a column's entry that is inconsistent, e.g. after a flipped
    bit. Reading the column first raises an exception instead.
    """
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    codecs = {group.column(index).compression for group in groups for index in range(group.num_columns)}
    if codecs <= {"ZSTD"}:
        return []
    return [f"Columns are compressed with {', '.join(sorted(codecs))}; expected ZSTD."]


def _faults_of_rows(parquet: pq.ParquetFile, entry: dict[str, Any], name: str | None) -> Iterator[str]:
    """Yield the faults of the rows, and how they differ from the footer (its `geo` entry) and the name."""
    width = math.prod(parquet.schema_arrow.field("embeddings").type.shape)
    faults: defaultdict[str, list[str]] = defaultdict(list)
    extent, rows = Extent(), list[Row]()
    for batch in parquet.iter_batches(max(1, BATCH_BYTES // (4 * width))):
        bad = row_faults(batch)
        for what, urls in bad.items():
            faults[what] += urls
        if not bad:
            extent.add(batch["geometry"])
            columns = (batch[column].to_pylist() for column in ("source_url", "date", "geometry"))
            rows += zip(*columns, strict=True)
    complete = bool(rows) and not faults
    for what, url in _misplaced(rows):
        faults[what].append(url)
    yield from (f"The file has {fault}." for fault in described(faults))
    if complete:  # with bad rows left out, the rest can't be compared with footer and name
        yield from _extent_faults(extent, entry)
        if name is not None:
            dates = [day for _, day, _ in rows]
            yield from _name_faults(name, min(dates), max(dates))


def _misplaced(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Yield the fault and the URL of rows in the wrong order and of duplicate rows."""
    last, seen = (date.min, -1), set[tuple[str, bytes]]()
    for url, day, footprint in rows:
        number = CHIP_NUMBER.search(url)
        # A URL without a number may be anywhere within its date.
        place = (day, int(number[1]) if number else last[1] if day == last[0] else -1)
        if place < last:
            yield "a date or chip number below that of the row before", url
        if (url, footprint) in seen:
            yield "the source_url and footprint of an earlier row", url
        last = place
        seen.add((url, footprint))


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
