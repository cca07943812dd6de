"""A published file as a STAC Item.

The embeddings extension allows `emb:` keys only among an Item's properties, and neither type nor dimensions
there: these describe the Collection.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyproj
import shapely
from numpy.typing import NDArray

from clay_assets.chips.antimeridian import bounds_of
from clay_assets.publishing import PublishedName, parse_published_name
from clay_assets.publishing.schema import CRS
from clay_assets.reading.facts import facts_of
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import opened
from clay_assets.stac.parts import (
    EMBEDDINGS,
    EXTENSIONS,
    GEOJSON,
    PARQUET,
    PROCESSING,
    TABLE,
    Json,
    feature,
    file_properties,
    link,
)
from clay_assets.storage import Store
from clay_assets.tiles.bounds import utm_zone

PIECE = 8 * 2**20
"""Bytes hashed at a time."""

PIXEL = 10.0
"""Size of a pixel on the ground, metres, in every chip this package reads."""

ITEM_EXTENSIONS = [
    EMBEDDINGS,
    PROCESSING,
    f"{EXTENSIONS}/file/v2.1.0/schema.json",
    f"{EXTENSIONS}/grid/v1.1.0/schema.json",
    TABLE,
]


def parsed_name(name: str) -> PublishedName:
    """Parse the name of a published file.

    Raises:
        ValueError: It is not such a name.
    """
    parsed = parse_published_name(name)
    if parsed is None:
        raise ValueError(f"got the file {name!r}; expected a name such as 27WXN_20200101_20231231_v001.gpq")
    return parsed


def collection_id(version: int) -> str:
    """Return the id of a version's Collection."""
    return f"clay-embeddings-v{version:03}"


def file_item(
    output: Store,
    name: str,
    *,
    href: str,
    made: datetime,
    thumbnail: str = "",
    energy: Mapping[str, Any] | None = None,
) -> Json:
    """Describe a published file.

    Reads the footer and the rows without their vectors, and all bytes once to hash them. The Collection is
    `../collection.json`, the model `../model.json`, seen from the Item.

    Args:
        output: Store of published files.
        name: Name of the file.
        href: Address of the file, seen from the Item.
        made: When the embeddings were made.
        thumbnail: Address of a picture; "" for none.
        energy: `emb:energy`, as `EnergyMeter` measured it; None if it was not measured.

    Raises:
        ValueError: The name is not that of a published file, or the file has no embeddings.
        DamagedFileError: The file can't be read as Parquet.
        StorageError: The store refuses.
    """
    parsed = parsed_name(name)
    file = SourceFile(output, output.stat(name))
    with opened(file) as parquet:
        facts, schema = facts_of(parquet), parquet.schema_arrow
        if not facts.shape:
            raise ValueError(f"{file.url} has lists as embeddings; expected tensors, as published files have")
        rows = parquet.read(columns=["source_url", "date", "geometry"])
    footprints = shapely.from_wkb(rows["geometry"].to_numpy())
    days = pc.min_max(rows["date"]).as_py()
    provenance = facts.provenance
    properties: Json = {
        "gsd": PIXEL,
        "grid:code": f"MGRS-{parsed.tile}",
        **file_properties(provenance, schema, facts.rows, (days["min"], days["max"]), made),
        # Counts for which no extension has a name.
        **{f"clay:{key}": value for key, value in provenance.items() if key != "software"},
        "clay:version": parsed.version,
        "clay:shape": list(facts.shape),
    }
    for count in ("clay:chips", "clay:skipped", "clay:preprocessing"):
        if str(properties.get(count, "")).isdecimal():
            properties[count] = int(properties[count])
    if side := _chip_pixels(parsed.tile, footprints):
        properties["clay:chip_pixels"] = side
    if energy:
        properties["emb:energy"] = dict(energy)
    assets: Json = {
        "embeddings": {
            "href": href,
            "type": PARQUET,
            "roles": ["data"],
            "title": f"Embeddings of tile {parsed.tile}, one row each",
            "file:size": file.object.size,
            "file:checksum": _checksum(file),
        }
    }
    if thumbnail:
        assets["thumbnail"] = {"href": thumbnail, "type": "image/png", "roles": ["thumbnail"]}
    links = [link(rel, "../collection.json") for rel in ("root", "parent", "collection")]
    links.append(link("emb:model", "../model.json", GEOJSON, "The model"))
    if source := common_folder(rows["source_url"].to_pylist()):
        links.append(link("emb:source-data", source, title="The chips"))
    made_item = feature(
        id=name.removesuffix(".gpq"),
        geometry=_hull(footprints),
        bbox=bounds_of(footprints),
        extensions=ITEM_EXTENSIONS,
        properties=properties,
        links=links,
        assets=assets,
    )
    return made_item | {"collection": collection_id(parsed.version)}


def common_folder(urls: Sequence[str]) -> str:
    """Return the deepest folder that holds all URLs, with its slash."""
    low, high = min(urls), max(urls)
    shared = next(
        (at for at, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low)
    )
    return low[: low.rfind("/", 0, shared) + 1]


def _hull(footprints: NDArray[np.object_]) -> shapely.Geometry:
    """Return the convex hull of footprints; one on each side of the antimeridian."""
    parts = shapely.get_parts(footprints)
    west, _, east, _ = bounds_of(footprints)
    if west <= east:
        return shapely.orient_polygons(shapely.convex_hull(shapely.multipolygons(parts)))
    positive = shapely.bounds(parts)[:, 0] >= 0
    hulls = [shapely.convex_hull(shapely.multipolygons(parts[side])) for side in (positive, ~positive)]
    return shapely.orient_polygons(shapely.multipolygons(hulls))


def _checksum(file: SourceFile) -> str:
    """Return the SHA-256 of a file as a multihash in hexadecimal."""
    digest = hashlib.sha256()
    with closing(file.store.open(file.object)) as source:
        while piece := source.read(PIECE):
            digest.update(piece)
    return f"1220{digest.hexdigest()}"  # 12: SHA-256; 20: its 32 bytes


def _chip_pixels(tile: str, footprints: NDArray[np.object_]) -> int | None:
    """Return the pixels along a chip's side from the median area in UTM; None if not a whole number."""
    to_metres = pyproj.Transformer.from_crs(CRS, utm_zone(tile), always_xy=True)
    flat = shapely.transform(footprints, lambda xy: np.stack(to_metres.transform(*xy.T), axis=1))
    side = float(np.median(np.sqrt(shapely.area(flat)) / PIXEL))
    return round(side) if np.isfinite(side) and side >= 1 and abs(side - round(side)) < 0.01 * side else None
