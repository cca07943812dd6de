"""Read a published file's footer: its provenance, and what is wrong with what it declares.

Here belongs what can be said without reading a row; from S3 that is a few kilobytes. Judging the rows belongs
in `validation.py`, what a footer ought to declare in `schema.py`.
"""

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
    """Return what a file says it was made from, by bare names; empty where it says nothing.

    The mean vector, a number of what was made, is left out.

    Raises:
        DamagedFileError: the file is no Parquet file.
        OSError: the file can't be opened or its bytes can't be fetched.
    """
    try:
        pairs = pq.read_metadata(file).metadata or {}
        names = {
            key.decode(): value.decode() for key, value in pairs.items() if key.startswith(PREFIX.encode())
        }
    except DAMAGE as error:
        raise damaged(error) from error
    return {key.removeprefix(PREFIX): value for key, value in names.items() if key != PREFIX + MEAN}


def column_faults(schema: pa.Schema, shape: tuple[int, ...] | None) -> list[str]:
    """Return how a file's columns differ from the published ones; any embedding shape will do where None."""
    if tuple(schema.names) != COLUMNS:
        return [f"The columns are {', '.join(schema.names)}; expected {', '.join(COLUMNS)}."]
    tensor = schema.field("embeddings").type
    is_tensor = isinstance(tensor, pa.FixedShapeTensorType)
    wanted = published_schema(shape or (tuple(tensor.shape) if is_tensor else (1,)))
    faults = [
        f"Column {got.name} has type {got.type}; expected {expected.type}."
        for got, expected in zip(schema, wanted, strict=True)
        if got.type != expected.type and (is_tensor or got.name != "embeddings")
    ]
    if not is_tensor:
        faults.append(f"Column embeddings has type {tensor}; expected a fixed_shape_tensor of float.")
    return faults


def storage_faults(metadata: pq.FileMetaData) -> list[str]:
    """Return what is wrong with the number of rows and the provenance."""
    pairs = metadata.metadata or {}
    unsaid = [PREFIX + name for name in PROVENANCE if not pairs.get((PREFIX + name).encode())]
    faults = []
    if not metadata.num_rows:
        faults.append("The file has no rows.")
    if unsaid:
        faults.append(f"The footer does not say {', '.join(unsaid)}.")
    return faults


def compression_faults(metadata: pq.FileMetaData) -> list[str]:
    """Return what is wrong with the compression; only for a file whose every column was read before.

    PyArrow (26) ends the process when it is asked for a column's entry that contradicts itself, as a flipped
    bit can leave it. Reading meets the same entry and raises.
    """
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    compression = {
        group.column(column).compression for group in groups for column in range(group.num_columns)
    }
    if compression - {"ZSTD"}:
        return [f"Columns are compressed with {', '.join(sorted(compression))}; expected ZSTD."]
    return []


def geometry_entry(pairs: dict[bytes, bytes]) -> tuple[dict[str, Any], list[str]]:
    """Return the `geo` metadata's entry for column geometry (empty where there is none) and what is wrong."""
    if b"geo" not in pairs:
        return {}, ["The file has no geo metadata: it is no GeoParquet file."]
    try:
        geo = json.loads(pairs[b"geo"])
        (column, entry), *others = geo["columns"].items()
        if column != "geometry" or others or not isinstance(entry, dict):
            raise ValueError(f"it describes columns {', '.join(geo['columns'])}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, [f"The geo metadata is not that of one column named geometry ({error!r})."]
    facts = [
        ("version", geo.get("version"), GEOPARQUET_VERSION),
        ("primary_column", geo.get("primary_column"), "geometry"),
        ("encoding", entry.get("encoding"), "WKB"),
        ("edges", entry.get("edges", "planar"), "planar"),
    ]
    faults = [f"geo: {key} is {got!r}; expected {wanted!r}." for key, got, wanted in facts if got != wanted]
    if "crs" in entry and not _is_crs84(json.dumps(entry["crs"])):  # left out, it means OGC:CRS84
        faults.append(f"geo: crs is not {CRS}.")
    return entry, faults


@functools.lru_cache(maxsize=4)
def _is_crs84(projjson: str) -> bool:
    """Whether a CRS as JSON is OGC:CRS84; kept, as PROJ takes longer than reading the footer of a file."""
    try:
        return bool(pyproj.CRS.from_user_input(json.loads(projjson)) == pyproj.CRS.from_user_input(CRS))
    except pyproj.exceptions.CRSError:  # a null, or JSON that is no CRS
        return False
