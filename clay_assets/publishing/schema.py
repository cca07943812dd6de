"""Name, columns and metadata of a published file.

The format: https://geoparquet.org/releases/v1.0.0/
"""

import base64
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj

from clay_assets.parquet import DAMAGE, damaged
from clay_assets.tiles import TILE_PATTERN

COLUMNS = ("source_url", "date", "embeddings", "geometry")
GEOPARQUET_VERSION = "1.0.0"
CRS = "OGC:CRS84"  # WGS 84, longitude first, degrees

PREFIX = "clay:"  # of the provenance keys in the Parquet key-value metadata, which also has `geo`
PROVENANCE = ("model", "checkpoint_sha256", "level", "precision", "software")  # writers may add others
# Key of the file's mean vector, (D,) numbers as a JSON list: the mean of a collection then needs only its
# footers.
MEAN = "mean"

Bounds = tuple[float, float, float, float]
"""(xmin, ymin, xmax, ymax) in degrees of OGC:CRS84; xmin > xmax across the antimeridian."""

PublishedFile = str | Path | BinaryIO
"""A local path, or a binary file open for reading that can seek."""

_NAME = re.compile(rf"({TILE_PATTERN})_([0-9]{{8}})_([0-9]{{8}})_v([0-9]{{3,}})\.gpq")


@dataclass(frozen=True)
class PublishedName:
    """A published file's name; `str()` returns it: `27WXN_20200101_20231231_v001.gpq`.

    Raises `ValueError` if `parse_published_name` could not parse the name.
    """

    tile: str  # MGRS, e.g. 27WXN
    first: date  # earliest acquisition among the rows
    last: date  # latest acquisition among the rows
    version: int  # CLAY_VERSION, 0 or more

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(str(self)) or self.first > self.last:
            raise ValueError(
                f"got tile {self.tile!r}, dates {self.first} to {self.last} and version {self.version}: no"
                f" file name ({self}). Expected an MGRS tile such as 27WXN, a first date not after the last,"
                " and a version of 0 or more"
            )

    def __str__(self) -> str:
        return f"{self.tile}_{self.first:%Y%m%d}_{self.last:%Y%m%d}_v{self.version:03}.gpq"


def parse_published_name(name: str) -> PublishedName | None:
    """Parse a file name (without folders); return None if it is not a published file's name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    tile, first, last, version = match.groups()
    try:
        return PublishedName(tile, date.fromisoformat(first), date.fromisoformat(last), int(version))
    except ValueError:  # eight digits that are not a date, such as 20200230; or the first after the last
        return None


def published_schema(shape: tuple[int, ...]) -> pa.Schema:
    """Return the Arrow schema of a published file.

    The shape of one row's embedding is (768,) for level mean, (16, 16, 768) patch, (6, 16, 16, 768) group.
    Fields are nullable, as in the files that the Clay team published; the writer refuses nulls.

    Raises:
        ValueError: The shape is empty or has a dimension below 1.
    """
    if not shape or min(shape) < 1:
        raise ValueError(f"got embedding shape {shape}; expected at least one dimension, each 1 or more")
    types = (pa.string(), pa.date32(), pa.fixed_shape_tensor(pa.float32(), list(shape)), pa.binary())
    return pa.schema(list(zip(COLUMNS, types, strict=True)))


def geo_metadata(bounds: Bounds, types: Collection[str], counterclockwise: bool) -> str:
    """Return the JSON text of the `geo` key for footprints in OGC:CRS84.

    The types are Polygon, and MultiPolygon for footprints that the antimeridian cuts (RFC 7946, 3.1.9).
    Counterclockwise exterior rings are the only orientation that GeoParquet lets a file declare.
    """
    geometry: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(types),
        # A missing `crs` also means OGC:CRS84, but null means unknown; written out, readers cannot confuse
        # them.
        "crs": pyproj.CRS.from_user_input(CRS).to_json_dict(),
        "edges": "planar",
        "bbox": list(bounds),
    }
    if counterclockwise:
        geometry["orientation"] = "counterclockwise"
    return json.dumps(
        {"version": GEOPARQUET_VERSION, "primary_column": "geometry", "columns": {"geometry": geometry}}
    )


def footer_metadata(
    schema: pa.Schema, geo: str, provenance: Mapping[str, str], mean: np.ndarray
) -> dict[str, str]:
    """Return the Parquet key-value metadata of a file; `mean` is (D,), over rows and places.

    Readers of a folder (pyarrow's datasets, geopandas on them) look for `geo` in the Arrow schema, readers of
    one file in the footer. The schema is an Arrow IPC message in base64, as Arrow C++ stores it:
    https://arrow.apache.org/docs/cpp/parquet.html#roundtripping-arrow-types-and-schema
    """
    metadata = {"geo": geo} | {PREFIX + name: value for name, value in provenance.items()}
    message = base64.b64encode(schema.with_metadata(metadata).serialize()).decode()
    numbers = json.dumps([float(str(value)) for value in mean.astype(np.float32)])
    return metadata | {"ARROW:schema": message, PREFIX + MEAN: numbers}


def provenance_in(metadata: pq.FileMetaData) -> dict[str, str]:
    """Return the provenance in a footer by names without `clay:`; the mean is left out."""
    return {
        key.decode().removeprefix(PREFIX): value.decode()
        for key, value in (metadata.metadata or {}).items()
        if key.startswith(PREFIX.encode()) and key != f"{PREFIX}{MEAN}".encode()
    }


def read_provenance(file: PublishedFile) -> dict[str, str]:
    """Return a file's provenance by names without `clay:`; empty if it has none. The mean is left out.

    Raises:
        DamagedFileError: The file is not a Parquet file.
        OSError: The file can't be opened or its bytes can't be fetched.
    """
    try:
        return provenance_in(pq.read_metadata(file))
    except DAMAGE as error:
        raise damaged(error) from error
