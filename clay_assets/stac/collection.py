"""Items of one model and level as a STAC Collection."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from clay_assets.chips.antimeridian import joined_bounds
from clay_assets.reading.facts import MixedEmbeddings
from clay_assets.reading.selection import boxes_of
from clay_assets.stac.item import common_folder
from clay_assets.stac.parts import EMBEDDINGS, EXTENSIONS, GEOJSON, PARQUET, STAC_VERSION, Json, link

SHARED = ("clay:model", "clay:level", "clay:checkpoint_sha256", "clay:shape")
"""Properties that all Items of a Collection share."""


def collection(items: Sequence[Json], hrefs: Sequence[str], *, license: str, description: str = "") -> Json:
    """Describe all published files of a version.

    Args:
        items: At least one, all of one version.
        hrefs: Addresses of the Items, seen from the Collection.
        license: SPDX identifier, `proprietary` or `various`, as the owner of the embeddings chooses.
        description: Markdown; "" for a default one.

    Raises:
        MixedEmbeddings: Items of several models or levels.
    """
    model, level, checkpoint, shape = _shared(items)
    properties = [item["properties"] for item in items]
    bounds = joined_bounds(np.array([part for item in items for part in boxes_of(item["bbox"])]))
    first = min(one["start_datetime"] for one in properties)
    last = max(one["end_datetime"] for one in properties)
    rows = sum(one["table:row_count"] for one in properties)
    gsd = properties[0]["gsd"]
    layout: Json = {"layout_type": "regular_grid", "grid_id": "MGRS"}
    sides = {one.get("clay:chip_pixels") for one in properties}
    if len(sides) == 1 and None not in sides:
        layout |= {"chip_size": [*sides, *sides], "stride": [*sides, *sides]}
    sources = [link["href"] for item in items for link in item["links"] if link["rel"] == "emb:source-data"]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EMBEDDINGS, f"{EXTENSIONS}/item-assets/v1.0.0/schema.json"],
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
        "item_assets": {"embeddings": {"type": PARQUET, "roles": ["data"], "title": "One row an embedding"}},
        "links": [
            link("root", "collection.json"),
            link("emb:model", "model.json", GEOJSON, "The model"),
            link("emb:source-data", common_folder(sources or [""]) or "not said", title="The chips"),
            *(link("item", href, GEOJSON) for href in hrefs),
        ],
        "assets": {
            "items": {"href": "items.parquet", "type": PARQUET, "roles": ["collection-mirror"]},
            "mean": {"href": "mean.json", "type": "application/json", "roles": ["metadata"]},
        },
    }


def _shared(items: Sequence[Json]) -> list[Any]:
    kinds = {str([item["properties"].get(key) for key in SHARED]): item for item in items}
    if len(kinds) > 1:
        told = "; ".join(f"{item['id']} with {kind}" for kind, item in kinds.items())
        raise MixedEmbeddings(
            f"got Items of several kinds: {told}. Expected one model, level and checkpoint in a Collection:"
            " publish others under another CLAY_VERSION"
        )
    return [items[0]["properties"].get(key, "not said") for key in SHARED]
