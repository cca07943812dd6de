"""What a published file declares: its four columns, its `geo` metadata, and the names of its provenance keys.

Here belong facts about the format that both the writer and the validation need. What a single row must be
belongs in `rows.py`. The format: https://geoparquet.org/releases/v1.0.0/
"""

import base64
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj

COLUMNS = ("source_url", "date", "embeddings", "geometry")

GEOPARQUET_VERSION = "1.0.0"
CRS = "OGC:CRS84"  # WGS 84, longitude first, degrees

PREFIX = "clay:"
"""Stands before every provenance name in the Parquet key-value metadata, beside `geo`."""

PROVENANCE = ("model", "checkpoint_sha256", "level", "precision", "software")
"""What every published file says about its making; a caller may add further names."""

MEAN = "mean"
"""Provenance name of the file's mean vector, (D,) numbers as a JSON list: the mean of a collection is then a
matter of its footers."""

Bounds = tuple[float, float, float, float]
"""(xmin, ymin, xmax, ymax) in degrees of OGC:CRS84; xmin > xmax across the antimeridian."""

GEOMETRY_TYPES = {"Polygon", "MultiPolygon"}
"""Of footprints; the latter of those that the antimeridian cuts, as RFC 7946 asks (3.1.9). Only the few files
of UTM zones 1 and 60 that hold such a chip declare it."""


def published_schema(shape: tuple[int, ...]) -> pa.Schema:
    """Return the Arrow schema of a published file: exactly four columns.

    Fields are nullable, as in the files the Clay team published, so that the schema equals one spelled out by
    hand; that no value is null is ensured by the writer.

    Args:
        shape: of one row's embedding: (768,) for level mean, (16, 16, 768) patch, (6, 16, 16, 768) group.

    Raises:
        ValueError: the shape is empty or has a dimension below 1.
    """
    if not shape or min(shape) < 1:
        raise ValueError(f"got embedding shape {shape}; expected at least one dimension, each 1 or more")
    tensor = pa.fixed_shape_tensor(pa.float32(), list(shape))
    types = (pa.string(), pa.date32(), tensor, pa.binary())
    return pa.schema(list(zip(COLUMNS, types, strict=True)))


def width_of(shape: tuple[int, ...]) -> int:
    """Return how many floats one row's embedding holds."""
    return math.prod(shape)


def geo_metadata(bounds: Bounds, types: Collection[str], counterclockwise: bool) -> str:
    """Return the JSON text of the `geo` key for footprints in OGC:CRS84.

    Args:
        bounds: union of all rows' bounds.
        types: that the footprints have, of `GEOMETRY_TYPES`.
        counterclockwise: whether every polygon's exterior ring runs that way. GeoParquet lets a file claim
            only this direction; where it does not hold, nothing is claimed.
    """
    geometry: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(types),
        # In 1.0.0 a missing `crs` means OGC:CRS84 too, while a null means "unknown". Spelled out, no reader
        # needs to tell the two apart.
        "crs": pyproj.CRS.from_user_input(CRS).to_json_dict(),
        "edges": "planar",
        "bbox": list(bounds),
    }
    if counterclockwise:
        geometry["orientation"] = "counterclockwise"
    return json.dumps(
        {"version": GEOPARQUET_VERSION, "primary_column": "geometry", "columns": {"geometry": geometry}}
    )


def arrow_schema_metadata(schema: pa.Schema, said: Mapping[str, str]) -> dict[str, str]:
    """Return the footer entry from which Arrow restores a schema, with `said` as that schema's metadata.

    Readers of a folder (pyarrow's datasets, geopandas on them) look for `geo` in the schema, readers of one
    file in the footer. The entry is the schema as an Arrow IPC message in base64, as Arrow C++ stores it:
    https://arrow.apache.org/docs/cpp/parquet.html#roundtripping-arrow-types-and-schema
    """
    message = schema.with_metadata(dict(said)).serialize()
    return {"ARROW:schema": base64.b64encode(message).decode()}


def mean_metadata(mean: np.ndarray) -> dict[str, str]:
    """Return the footer entry of a file's mean vector.

    Args:
        mean: (D,), over rows and, at levels with several vectors a row, over places. Kept as float32.
    """
    return {PREFIX + MEAN: json.dumps([float(str(value)) for value in mean.astype(np.float32)])}
