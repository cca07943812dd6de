"""Columns and metadata of a published file, for the writer and the validation.

The format: https://geoparquet.org/releases/v1.0.0/
"""

import base64
import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj

COLUMNS = ("source_url", "date", "embeddings", "geometry")

GEOPARQUET_VERSION = "1.0.0"
CRS = "OGC:CRS84"  # WGS 84, longitude first, degrees

PREFIX = "clay:"
"""Prefix of the provenance keys in the Parquet key-value metadata, which also has `geo`."""

PROVENANCE = ("model", "checkpoint_sha256", "level", "precision", "software")
"""Provenance names that every published file has; writers may add others."""

MEAN = "mean"
"""Provenance name of the file's mean vector, (D,) numbers as a JSON list: the mean of a collection then needs
only its footers."""

Bounds = tuple[float, float, float, float]
"""(xmin, ymin, xmax, ymax) in degrees of OGC:CRS84; xmin > xmax across the antimeridian."""


def published_schema(shape: tuple[int, ...]) -> pa.Schema:
    """Return the Arrow schema of a published file.

    Fields are nullable, as in the files that the Clay team published; the writer refuses nulls.

    Args:
        shape: Shape of one row's embedding: (768,) for level mean, (16, 16, 768) patch, (6, 16, 16, 768)
            group.

    Raises:
        ValueError: The shape is empty or has a dimension below 1.
    """
    if not shape or min(shape) < 1:
        raise ValueError(f"got embedding shape {shape}; expected at least one dimension, each 1 or more")
    types = (pa.string(), pa.date32(), pa.fixed_shape_tensor(pa.float32(), list(shape)), pa.binary())
    return pa.schema(list(zip(COLUMNS, types, strict=True)))


def geo_metadata(bounds: Bounds, types: Collection[str], counterclockwise: bool) -> str:
    """Return the JSON text of the `geo` key for footprints in OGC:CRS84.

    Args:
        bounds: Union of all rows' bounds.
        types: Types of the footprints: Polygon, and MultiPolygon for those that the antimeridian cuts
            (RFC 7946, 3.1.9).
        counterclockwise: Whether every polygon's exterior ring is counterclockwise, the only direction that
            GeoParquet lets a file declare.
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


def arrow_schema_metadata(schema: pa.Schema, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the footer entry from which Arrow restores a schema together with `metadata`.

    Readers of a folder (pyarrow's datasets, geopandas on them) look for `geo` in the schema, readers of one
    file in the footer. The entry is the schema as an Arrow IPC message in base64, as Arrow C++ stores it:
    https://arrow.apache.org/docs/cpp/parquet.html#roundtripping-arrow-types-and-schema
    """
    message = schema.with_metadata(dict(metadata)).serialize()
    return {"ARROW:schema": base64.b64encode(message).decode()}


def mean_metadata(mean: np.ndarray) -> dict[str, str]:
    """Return the footer entry of a file's mean vector, (D,) over rows and places, as float32."""
    return {PREFIX + MEAN: json.dumps([float(str(value)) for value in mean.astype(np.float32)])}
