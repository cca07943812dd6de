"""All files of a version described at once: the Collection, the network as an Item, Items as one table."""

import io
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from clay_assets.chips.place import joined_bounds
from clay_assets.reading.files import Facts, MixedEmbeddings
from clay_assets.reading.selection import boxes_of
from clay_assets.stac import parts
from clay_assets.stac.item import common_folder
from clay_model.spec import MODELS


def collection(
    items: Sequence[parts.Json], hrefs: Sequence[str], *, license: str, description: str
) -> parts.Json:
    """Describe all published files of a version, from their Items; `description` "" for a default one.

    `hrefs` are the Items' addresses, relative to the Collection.
    """
    model, level, checkpoint, shape = _shared(items)
    properties = [item["properties"] for item in items]
    bounds = joined_bounds(np.array([part for item in items for part in boxes_of(item["bbox"])]))
    first = min(one["start_datetime"] for one in properties)
    last = max(one["end_datetime"] for one in properties)
    rows = sum(one["table:row_count"] for one in properties)
    gsd = properties[0]["gsd"]
    layout: parts.Json = {"layout_type": "regular_grid", "grid_id": "MGRS"}
    sides = {one.get("clay:chip_pixels") for one in properties}
    if len(sides) == 1 and None not in sides:
        layout |= {"chip_size": [*sides, *sides], "stride": [*sides, *sides]}
    sources = [one["href"] for item in items for one in item["links"] if one["rel"] == "emb:source-data"]
    return {
        "type": "Collection",
        "stac_version": parts.STAC_VERSION,
        "stac_extensions": parts.schema_urls([parts.EMBEDDINGS, "item-assets/v1.0.0"]),
        "id": items[0]["collection"],
        "title": f"Embeddings of {model} at level {level}",
        "description": description or f"{rows:,} embeddings of {len(items):,} Sentinel-2 tiles by {model}.",
        "license": license,
        "extent": {"spatial": {"bbox": [list(bounds)]}, "temporal": {"interval": [[first, last]]}},
        "summaries": {
            "gsd": [gsd],
            "clay:model": [model],
            "clay:level": [level],
            "clay:checkpoint_sha256": [checkpoint],
        },
        "emb:type": "chip",
        "emb:dimensions": shape[-1],
        "data_type": "float32",
        "gsd": gsd,
        "emb:chip_layout": layout,
        "item_assets": {
            "embeddings": {"type": parts.PARQUET, "roles": ["data"], "title": "One row an embedding"}
        },
        "links": [
            {"rel": "root", "href": "collection.json", "type": parts.JSON},
            {"rel": "emb:model", "href": "model.json", "type": parts.GEOJSON, "title": "The model"},
            {"rel": "emb:source-data", "href": common_folder(sources) or "not said", "title": "The chips"},
            *({"rel": "item", "href": href, "type": parts.GEOJSON} for href in hrefs),
        ],
        "assets": {
            "items": {"href": "items.parquet", "type": parts.PARQUET, "roles": ["collection-mirror"]},
            "mean": {"href": "mean.json", "type": parts.JSON, "roles": ["metadata"]},
        },
    }


def _shared(items: Sequence[parts.Json]) -> list[Any]:
    """Return model, level, checkpoint and shape, which all Items share."""
    names = ("clay:model", "clay:level", "clay:checkpoint_sha256", "clay:shape")
    kinds = {str([item["properties"].get(name) for name in names]): item for item in items}
    if len(kinds) > 1:
        told = "; ".join(f"{item['id']} with {kind}" for kind, item in kinds.items())
        raise MixedEmbeddings(
            f"got Items of several kinds: {told}. Expected one model, level and checkpoint in a Collection:"
            " publish others under another CLAY_VERSION"
        )
    return [items[0]["properties"].get(name, "not said") for name in names]


def model_item(facts: Facts, extent: parts.Json, checkpoint: str = "") -> parts.Json:
    """Describe the network that made a file as an Item of the machine-learning-model extension.

    The bands and their statistics come from `clay_model.spec`, shape and level from the file's facts, place
    and time, which an Item needs, from the Collection's extent. `checkpoint` is the URL of the weights.
    https://github.com/stac-extensions/mlm/tree/v1.4.0
    """
    provenance = facts.provenance
    name = provenance.get("model", "not said")
    spec = next((spec for spec in MODELS if name.startswith(f"{spec.name}-")), None)
    task = ["similarity-search"]
    axes = ["groups", "patch_rows", "patch_columns", "dimensions"]  # coarser levels have the last ones
    bbox, (start, end) = extent["spatial"]["bbox"][0], extent["temporal"]["interval"][0]
    inputs = spec and {
        "name": "windows of chips",
        "bands": list(spec.bands),
        "input": {
            "shape": [-1, len(spec.bands), spec.window_size, spec.window_size],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": deviation}
            for mean, deviation in zip(spec.mean, spec.deviation, strict=True)
        ],
    }
    output = {
        "name": f"embedding at level {provenance.get('level', 'not said')}",
        "tasks": task,
        "result": {
            "shape": [-1, *facts.shape],
            "dim_order": ["batch", *axes[-len(facts.shape) :]],
            "data_type": "float32",
        },
    }
    properties: parts.Json = {
        "start_datetime": start,
        "end_datetime": end,
        "description": f"{name}, a vision transformer for satellite imagery, used as an encoder",
        "mlm:name": name,
        "mlm:architecture": "ViT",
        "mlm:framework": "pytorch",
        "mlm:tasks": task,
        "mlm:pretrained": not provenance.get("weights", "").startswith("untrained"),
        "mlm:input": [inputs] if inputs else [],
        "mlm:output": [output],
        "clay:checkpoint_sha256": provenance.get("checkpoint_sha256", "not said"),
    }
    if spec:
        properties["eo:bands"] = [{"name": band} for band in spec.bands]
    weights = {
        "href": checkpoint,
        "type": "application/octet-stream; application=pytorch",
        "roles": ["mlm:model"],
        "mlm:artifact_type": "torch.save",
    }
    return parts.feature(
        id=f"{name}-{facts.shape[-1]}",
        geometry=parts.box(bbox),
        bbox=bbox,
        extensions=["mlm/v1.4.0", "eo/v1.1.0"],
        properties=properties,
        links=[{"rel": rel, "href": "collection.json", "type": parts.JSON} for rel in ("root", "parent")],
        assets={"model": weights} if checkpoint else {},
    )


def items_table(items: Sequence[parts.Json], described: parts.Json) -> bytes:
    """Return Items as a GeoParquet 1.1 file, by which thousands of tiles are read at once.

    Written after the stac-geoparquet specification: an Item's properties are columns of their own, its assets
    a struct, its geometry WKB; the metadata has the Collection, `described`.
    https://github.com/stac-utils/stac-geoparquet/blob/main/spec/stac-geoparquet-spec.md
    """
    times = ("datetime", "start_datetime", "end_datetime", "processing:datetime")
    plain = ("stac_version", "stac_extensions", "id", "collection", "links", "assets")
    rows = []
    for item in items:
        bbox = dict(zip(parts.CORNERS, item["bbox"], strict=True))
        rows.append({name: item[name] for name in plain} | {"bbox": bbox} | item["properties"])
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        if name in times:  # Arrow parses neither 7 decimals nor times without a zone, which count as UTC
            moments = [value and datetime.fromisoformat(value) for value in values]
            columns[name] = pa.array(moments, pa.timestamp("us", tz="UTC"))
        else:
            columns[name] = pa.array(values)
    footprints = [shapely.geometry.shape(item["geometry"]) for item in items]
    columns["geometry"] = pa.array(shapely.to_wkb(footprints), pa.binary())
    bounds = tuple(shapely.total_bounds(footprints).tolist())
    types = {footprint.geom_type for footprint in footprints}
    source = {"version": "1.0.0", "collections": {described["id"]: described}}
    geo = parts.covered_geo(bounds, types, counterclockwise=False)
    table = pa.table(columns).replace_schema_metadata({"geo": geo, "stac-geoparquet": json.dumps(source)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
