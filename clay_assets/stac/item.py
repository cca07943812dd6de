"""A published file as a STAC Item.

The embeddings extension allows `emb:` keys only among an Item's properties, and there no type and no
dimensions: these describe the Collection.
"""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any

import shapely

from clay_assets.stac.described import PIXEL, Described

STAC_VERSION = "1.0.0"
"""The embeddings extension refers to the schemas of this version and refuses later ones."""

EXTENSIONS = "https://stac-extensions.github.io"
EMBEDDINGS = f"{EXTENSIONS}/embeddings/v0.0.1/schema.json"
ITEM_EXTENSIONS = [
    EMBEDDINGS,
    f"{EXTENSIONS}/processing/v1.2.0/schema.json",
    f"{EXTENSIONS}/file/v2.1.0/schema.json",
    f"{EXTENSIONS}/grid/v1.1.0/schema.json",
    f"{EXTENSIONS}/table/v1.2.0/schema.json",
]

PARQUET = "application/vnd.apache.parquet"

RUNTIME = ("level", "precision", "preprocessing", "checkpoint_sha256")
"""Provenance that says how the encoder was run."""

Json = dict[str, Any]


def item(
    file: Described,
    *,
    collection: str,
    href: str,
    made: datetime,
    thumbnail: str = "",
    energy: Mapping[str, Any] | None = None,
) -> Json:
    """Describe a published file.

    Args:
        file: As `describe` sees it.
        collection: Id of the Collection, `../collection.json` beside it, and the model `../model.json`.
        href: Of the file, as seen from the Item.
        made: When the embeddings were made.
        thumbnail: Href of a picture; none where empty.
        energy: `emb:energy`, as `EnergyMeter` measured it; left out where it could not.

    Returns:
        The Item.
    """
    said = file.facts.provenance
    properties: Json = {
        "datetime": None,
        "start_datetime": midnight(file.first),
        "end_datetime": midnight(file.last, time(23, 59, 59)),
        "gsd": PIXEL,
        "grid:code": f"MGRS-{file.name.tile}",
        "processing:datetime": made.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "processing:software": software(said.get("software", "")),
        "table:columns": [{"name": name, "type": kind} for name, kind in file.columns],
        "table:row_count": file.facts.rows,
        "table:primary_geometry": "geometry",
        "emb:runtime_parameters": {name: said[name] for name in RUNTIME if name in said},
        # Our accounting, which no extension has words for.
        **{f"clay:{name}": value for name, value in said.items() if name not in ("software",)},
        "clay:version": file.name.version,
        "clay:shape": list(file.facts.shape),
    }
    for count in ("clay:chips", "clay:skipped", "clay:preprocessing"):
        if str(properties.get(count, "")).isdecimal():
            properties[count] = int(properties[count])
    if file.chip_pixels is not None:
        properties["clay:chip_pixels"] = file.chip_pixels
    if energy:
        properties["emb:energy"] = dict(energy)
    assets: Json = {
        "embeddings": {
            "href": href,
            "type": PARQUET,
            "roles": ["data"],
            "title": f"Embeddings of tile {file.name.tile}, one row each",
            "file:size": file.size,
            "file:checksum": file.checksum,
        }
    }
    if thumbnail:
        assets["thumbnail"] = {"href": thumbnail, "type": "image/png", "roles": ["thumbnail"]}
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": ITEM_EXTENSIONS,
        "id": file.id,
        "collection": collection,
        "geometry": json.loads(shapely.to_geojson(file.outline)),
        "bbox": list(file.bounds),
        "properties": properties,
        "links": [
            link("root", "../collection.json"),
            link("parent", "../collection.json"),
            link("collection", "../collection.json"),
            link("emb:model", "../model.json", "application/geo+json", "The model"),
            *([link("emb:source-data", file.source, title="The chips")] if file.source else []),
        ],
        "assets": assets,
    }


def link(rel: str, href: str, kind: str = "application/json", title: str = "") -> Json:
    """A STAC link."""
    known = href.endswith(".json")
    return (
        {"rel": rel, "href": href} | ({"type": kind} if known else {}) | ({"title": title} if title else {})
    )


def midnight(day: date, at: time = time(0)) -> str:
    """A day's beginning, or another time of it, in UTC as STAC writes it."""
    return f"{datetime.combine(day, at).isoformat()}Z"


def software(text: str) -> dict[str, str]:
    """`torch/2.13.0 python/3.11.0` as `processing:software`; a word without a version keeps an empty one."""
    pairs = (word.partition("/") for word in text.split())
    return {name: version for name, _, version in pairs}
