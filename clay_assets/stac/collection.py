"""Items of one model and level as a STAC Collection."""

from collections.abc import Sequence

import numpy as np

from clay_assets.chips.antimeridian import joined_bounds
from clay_assets.reading.facts import MixedEmbeddings
from clay_assets.reading.selection import boxes_of
from clay_assets.stac.item import EMBEDDINGS, EXTENSIONS, PARQUET, STAC_VERSION, Json, link

KIND = ("clay:model", "clay:level", "clay:checkpoint_sha256", "clay:shape")
"""Properties that all Items of a Collection share."""


def collection(
    items: Sequence[Json],
    *,
    id: str,
    license: str,
    source: str,
    description: str = "",
    hrefs: Sequence[str] = (),
) -> Json:
    """Describe a collection of published files.

    Args:
        items: At least one.
        id: Of the Collection.
        license: SPDX identifier, `proprietary` or `various`, as its owner sets it.
        source: URL of the chips.
        description: In Markdown; a plain one where empty.
        hrefs: Of the Items, as seen from the Collection.

    Raises:
        ValueError: There is no Item.
        MixedEmbeddings: Items of several models or levels.
    """
    if not items:
        raise ValueError("got no Items; expected at least one. Publish a tile first")
    facts = _common(items)
    boxes = [item["bbox"] for item in items]
    starts = [item["properties"]["start_datetime"] for item in items]
    ends = [item["properties"]["end_datetime"] for item in items]
    bounds = joined_bounds(np.array([part for box in boxes for part in boxes_of(box)]))
    sides = {item["properties"].get("clay:chip_pixels") for item in items}
    side = sides.pop() if len(sides) == 1 else None
    rows = sum(item["properties"]["table:row_count"] for item in items)
    model, level = facts["clay:model"], facts["clay:level"]
    made: Json = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EMBEDDINGS, f"{EXTENSIONS}/item-assets/v1.0.0/schema.json"],
        "id": id,
        "title": f"Embeddings of {model} at level {level}",
        "description": description or f"{rows:,} embeddings of {len(items):,} Sentinel-2 tiles by {model}.",
        "license": license,
        "extent": {
            "spatial": {"bbox": [list(bounds)]},
            "temporal": {"interval": [[min(starts), max(ends)]]},
        },
        "summaries": {"gsd": [items[0]["properties"]["gsd"]], **{key: [facts[key]] for key in KIND[:3]}},
        "emb:type": "chip",
        "emb:dimensions": facts["clay:shape"][-1],
        "data_type": "float32",
        "gsd": items[0]["properties"]["gsd"],
        "emb:chip_layout": {"layout_type": "regular_grid", "grid_id": "MGRS"}
        | ({"chip_size": [side, side], "stride": [side, side]} if side else {}),
        "item_assets": {"embeddings": {"type": PARQUET, "roles": ["data"], "title": "One row an embedding"}},
        "links": [
            link("root", "collection.json"),
            link("emb:model", "model.json", "application/geo+json", "The model"),
            link("emb:source-data", source, title="The chips"),
            *(link("item", href, "application/geo+json") for href in hrefs),
        ],
        "assets": {
            "items": {"href": "items.parquet", "type": PARQUET, "roles": ["collection-mirror"]},
            "mean": {"href": "mean.json", "type": "application/json", "roles": ["metadata"]},
        },
    }
    return made


def _common(items: Sequence[Json]) -> Json:
    kinds = {str([item["properties"].get(key) for key in KIND]): item for item in items}
    if len(kinds) > 1:
        told = "; ".join(f"{item['id']} with {kind}" for kind, item in kinds.items())
        raise MixedEmbeddings(
            f"got Items that make no collection: {told}. Expected one model, level and checkpoint: publish"
            " others under another CLAY_VERSION"
        )
    properties = items[0]["properties"]
    return {key: properties.get(key, "not said") for key in KIND}
