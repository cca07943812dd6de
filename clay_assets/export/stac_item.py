"""A STAC Item of an exported dataset, with `emb:quantization` where its vectors are bytes."""

import json
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

import shapely

from clay_assets.export.writer import copy_schema, numbers
from clay_assets.reading.facts import Quantization
from clay_assets.reading.selection import boxes_of
from clay_assets.stac.item import (
    EMBEDDINGS,
    EXTENSIONS,
    PARQUET,
    RUNTIME,
    STAC_VERSION,
    Json,
    midnight,
    software,
)

if TYPE_CHECKING:
    from clay_assets.export.dataset import Exported


def export_item(done: "Exported", width: int, how: Quantization | None, made: datetime) -> Json:
    """Describe a dataset.

    Args:
        done: What was written.
        width: Numbers of an embedding.
        how: How bytes become numbers again; None where they are float32.
        made: When.
    """
    said = done.provenance
    columns = copy_schema(width, quantized=how is not None)
    properties: Json = {
        "datetime": None,
        "start_datetime": midnight(done.first),
        "end_datetime": midnight(done.last, time(23, 59, 59)),
        "processing:datetime": made.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "processing:software": software(said.get("software", "")),
        "table:columns": [{"name": field.name, "type": str(field.type)} for field in columns],
        "table:row_count": done.rows,
        "table:primary_geometry": "geometry",
        "emb:runtime_parameters": {name: said[name] for name in RUNTIME if name in said},
        "clay:model": said.get("model", "not said"),
        "clay:bytes": done.bytes,
    }
    if how is not None:
        properties["emb:quantization"] = {
            "method": "affine: stored * scale + offset, by dimension",
            "original_dtype": "float32",
            "quantized_dtype": "uint8",
            "scale": numbers(how.scale),
            "offset": numbers(how.offset),
        }
    if done.recall is not None:
        properties["clay:recall"] = vars(done.recall)
    outline = shapely.union_all([shapely.box(*part) for part in boxes_of(done.bbox)])
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [
            EMBEDDINGS,
            f"{EXTENSIONS}/processing/v1.2.0/schema.json",
            f"{EXTENSIONS}/table/v1.2.0/schema.json",
        ],
        "id": done.url.rstrip("/").rpartition("/")[2],
        "geometry": json.loads(shapely.to_geojson(outline)),
        "bbox": list(done.bbox),
        "properties": properties,
        "links": [],
        "assets": {"embeddings": {"href": "./", "type": PARQUET, "roles": ["data"]}},
    }
