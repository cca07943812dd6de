"""Shared by Items, the Collection, the model and exported datasets: versions, features, metadata."""

import json
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, time
from typing import Any

import pyarrow as pa
import shapely
from shapely import Geometry

from clay_assets.publishing.schema import Bounds, geo_metadata
from clay_assets.reading.selection import boxes_of

STAC_VERSION = "1.0.0"  # the embeddings extension refers to its schemas, and refuses later versions
EMBEDDINGS, PROCESSING, TABLE = "embeddings/v0.0.1", "processing/v1.2.0", "table/v1.2.0"
PARQUET, JSON, GEOJSON = "application/vnd.apache.parquet", "application/json", "application/geo+json"

CORNERS = ("xmin", "ymin", "xmax", "ymax")
Json = dict[str, Any]


def schema_urls(extensions: list[str]) -> list[str]:
    """Return the addresses of the schemas of extensions, each given as `name/version`."""
    return [f"https://stac-extensions.github.io/{extension}/schema.json" for extension in extensions]


def feature(
    id: str, geometry: Geometry, bbox: Bounds, extensions: list[str], properties: Json, **others: object
) -> Json:
    """Return an Item; `others` are its links, its assets and any other members."""
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": schema_urls(extensions),
        "id": id,
        "geometry": json.loads(shapely.to_geojson(geometry)),
        "bbox": list(bbox),
        "properties": {"datetime": None, **properties},
        **others,
    }


def file_properties(
    provenance: Mapping[str, str], schema: pa.Schema, rows: int, days: tuple[date, date], made: datetime
) -> Json:
    """Return the properties that extensions define for embeddings `made` from the `days`' imagery."""
    words = (word.partition("/") for word in provenance.get("software", "").split())  # torch/2.13.0
    runtime = ("level", "precision", "preprocessing", "checkpoint_sha256")
    return {
        "start_datetime": f"{days[0]}T00:00:00Z",
        "end_datetime": f"{datetime.combine(days[1], time(23, 59, 59)).isoformat()}Z",
        "processing:datetime": made.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "processing:software": {name: version for name, _, version in words},
        "table:columns": [{"name": field.name, "type": str(field.type)} for field in schema],
        "table:row_count": rows,
        "table:primary_geometry": "geometry",
        "emb:runtime_parameters": {name: provenance[name] for name in runtime if name in provenance},
    }


def box(bounds: Bounds) -> Geometry:
    """Return a bounding box as a polygon, as two if it crosses the antimeridian."""
    return shapely.union_all([shapely.box(*part) for part in boxes_of(bounds)])


def covered_geo(bounds: Bounds, types: Collection[str], counterclockwise: bool) -> str:
    """Return `geo` of GeoParquet 1.1 for a table with a column `bbox`, by which readers skip row groups."""
    geo = json.loads(geo_metadata(bounds, types, counterclockwise)) | {"version": "1.1.0"}
    geo["columns"]["geometry"]["covering"] = {"bbox": {corner: ["bbox", corner] for corner in CORNERS}}
    return json.dumps(geo)


def as_bytes(document: Json) -> bytes:
    """Return a document as UTF-8 JSON."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
