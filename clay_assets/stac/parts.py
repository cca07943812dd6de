"""Shared by Items, the Collection and the model: versions, links, features, times."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any

import pyarrow as pa
import shapely

from clay_assets.publishing.schema import Bounds
from clay_assets.reading.selection import boxes_of

STAC_VERSION = "1.0.0"
"""The embeddings extension refers to the schemas of this version and refuses later ones."""

EXTENSIONS = "https://stac-extensions.github.io"
EMBEDDINGS = f"{EXTENSIONS}/embeddings/v0.0.1/schema.json"
PROCESSING = f"{EXTENSIONS}/processing/v1.2.0/schema.json"
TABLE = f"{EXTENSIONS}/table/v1.2.0/schema.json"

PARQUET = "application/vnd.apache.parquet"
GEOJSON = "application/geo+json"

RUNTIME = ("level", "precision", "preprocessing", "checkpoint_sha256")
"""Provenance that describes the encoder's run."""

Json = dict[str, Any]


def feature(
    *,
    id: str,
    geometry: shapely.Geometry,
    bbox: Bounds,
    extensions: Sequence[str],
    properties: Json,
    links: Sequence[Json],
    assets: Json,
) -> Json:
    """Return an Item."""
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(extensions),
        "id": id,
        "geometry": json.loads(shapely.to_geojson(geometry)),
        "bbox": list(bbox),
        "properties": {"datetime": None, **properties},
        "links": list(links),
        "assets": assets,
    }


def file_properties(
    provenance: Mapping[str, str], schema: pa.Schema, rows: int, days: tuple[date, date], made: datetime
) -> Json:
    """Return the properties of an Item of embeddings that extensions define.

    Args:
        provenance: Provenance of the embeddings, names without their prefix.
        schema: Schema of the table.
        rows: Number of rows in the table.
        days: First and last acquisition.
        made: When the embeddings or their copy were made.
    """
    words = (word.partition("/") for word in provenance.get("software", "").split())  # torch/2.13.0
    return {
        "start_datetime": f"{days[0]}T00:00:00Z",
        "end_datetime": f"{datetime.combine(days[1], time(23, 59, 59)).isoformat()}Z",
        "processing:datetime": made.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "processing:software": {name: version for name, _, version in words},
        "table:columns": [{"name": field.name, "type": str(field.type)} for field in schema],
        "table:row_count": rows,
        "table:primary_geometry": "geometry",
        "emb:runtime_parameters": {name: provenance[name] for name in RUNTIME if name in provenance},
    }


def link(rel: str, href: str, media_type: str = "application/json", title: str = "") -> Json:
    """Return a STAC link; only links to JSON files have a type."""
    return (
        {"rel": rel, "href": href}
        | ({"type": media_type} if href.endswith(".json") else {})
        | ({"title": title} if title else {})
    )


def box(bounds: Bounds) -> shapely.Geometry:
    """Return a bounding box as a polygon, as two if it crosses the antimeridian."""
    return shapely.union_all([shapely.box(*part) for part in boxes_of(bounds)])


def as_bytes(document: Json) -> bytes:
    """Return a document as UTF-8 JSON."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
