"""Reads a published file's footer: its provenance, and the faults of what it declares."""

import functools
import json
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pyproj

from clay_assets.parquet import DAMAGE, damaged
from clay_assets.publishing.schema import (
    COLUMNS,
    CRS,
    GEOPARQUET_VERSION,
    MEAN,
    PREFIX,
    PROVENANCE,
    published_schema,
)

PublishedFile = str | Path | BinaryIO
"""A local path, or a binary file open for reading that can seek."""


def read_provenance(file: PublishedFile) -> dict[str, str]:
    """Return a file's provenance by names without `clay:`; empty if it has none. The mean is left out.

    Raises:
        DamagedFileError: The file is not a Parquet file.
        OSError: The file can't be opened or its bytes can't be fetched.
    """
    try:
        pairs = pq.read_metadata(file).metadata or {}
        ours = [pair for pair in pairs.items() if pair[0].startswith(PREFIX.encode())]
        provenance = {key.decode().removeprefix(PREFIX): value.decode() for key, value in ours}
    except DAMAGE as error:
        raise damaged(error) from error
    provenance.pop(MEAN, None)
    return provenance


def column_faults(schema: pa.Schema, shape: tuple[int, ...] | None) -> list[str]:
    """Return how a file's columns differ from the published ones; any embedding shape passes if None."""
    if tuple(schema.names) != COLUMNS:
        return [f"The columns are {', '.join(schema.names)}; expected {', '.join(COLUMNS)}."]
    tensor = schema.field("embeddings").type
    is_tensor = isinstance(tensor, pa.FixedShapeTensorType)
    published = published_schema(shape or (tuple(tensor.shape) if is_tensor else (1,)))
    faults = [
        f"Column {got.name} has type {got.type}; expected {expected.type}."
        for got, expected in zip(schema, published, strict=True)
        if got.type != expected.type and (is_tensor or got.name != "embeddings")
    ]
    if not is_tensor:
        faults.append(f"Column embeddings has type {tensor}; expected a fixed_shape_tensor of float.")
    return faults


def storage_faults(metadata: pq.FileMetaData) -> list[str]:
    """Return the faults of the number of rows and the provenance."""
    pairs = metadata.metadata or {}
    missing = [PREFIX + name for name in PROVENANCE if not pairs.get((PREFIX + name).encode())]
    faults = [] if metadata.num_rows else ["The file has no rows."]
    return faults + ([f"The footer lacks {', '.join(missing)}."] if missing else [])


def compression_faults(metadata: pq.FileMetaData) -> list[str]:
    """Return the faults of the compression of a file whose columns have all been read.

    PyArrow (26) crashes the process on access to a column's entry that is inconsistent, e.g. after a flipped
    bit. Reading the column first raises an exception instead.
    """
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    codecs = {group.column(index).compression for group in groups for index in range(group.num_columns)}
    return (
        [f"Columns are compressed with {', '.join(sorted(codecs))}; expected ZSTD."]
        if codecs - {"ZSTD"}
        else []
    )


def geometry_entry(pairs: dict[bytes, bytes]) -> tuple[dict[str, Any], list[str]]:
    """Return the `geo` metadata's entry for column geometry (empty if there is none) and its faults."""
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
