"""A published file as a STAC Item.

The embeddings extension allows `emb:` keys only among an Item's properties, and neither type nor dimensions
there: these describe the Collection.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime

import numpy as np
import pyarrow.compute as pc
import pyproj
import shapely
from numpy.typing import NDArray

from clay_assets.chips.place import bounds_of
from clay_assets.publishing.schema import CRS, PublishedName, parse_published_name
from clay_assets.reading.files import SourceFile, facts_of
from clay_assets.reading.scan import opened
from clay_assets.stac import parts
from clay_assets.tiles.bounds import utm_zone

PIXEL = 10.0  # size of a pixel on the ground, metres, in every chip this package reads


def parsed_name(name: str) -> PublishedName:
    """Parse the name of a published file; raise ValueError if it is not such a name."""
    parsed = parse_published_name(name)
    if parsed is None:
        raise ValueError(f"got the file {name!r}; expected a name such as 27WXN_20200101_20231231_v001.gpq")
    return parsed


def file_item(file: SourceFile, *, href: str, made: datetime) -> parts.Json:
    """Describe a published file.

    Reads the footer and the rows without their vectors, and all bytes once to hash them. `made` is when the
    embeddings were made. `href` (the file's address), `../collection.json` and `../model.json` are relative
    to the Item.

    Raises:
        ValueError: The name is not that of a published file, or the file has no embeddings.
        DamagedFileError: The file can't be read as Parquet.
    """
    name = parsed_name(file.name)
    with opened(file) as parquet:
        facts, schema = facts_of(file, parquet), parquet.schema_arrow
        if not facts.shape:
            raise ValueError(f"{file.url} has lists as embeddings; expected tensors, as published files have")
        rows = parquet.read(columns=["source_url", "date", "geometry"])
    footprints = shapely.from_wkb(rows["geometry"].to_numpy())
    days = pc.min_max(rows["date"]).as_py()
    properties: parts.Json = {
        "gsd": PIXEL,
        "grid:code": f"MGRS-{name.tile}",
        **parts.file_properties(facts.provenance, schema, facts.rows, (days["min"], days["max"]), made),
        # Counts for which no extension has a name.
        **{f"clay:{key}": value for key, value in facts.provenance.items() if key != "software"},
        "clay:version": name.version,
        "clay:shape": list(facts.shape),
    }
    for count in ("clay:chips", "clay:skipped", "clay:preprocessing"):
        if str(properties.get(count, "")).isdecimal():
            properties[count] = int(properties[count])
    if side := _chip_pixels(name.tile, footprints):
        properties["clay:chip_pixels"] = side
    asset = {
        "href": href,
        "type": parts.PARQUET,
        "roles": ["data"],
        "title": f"Embeddings of tile {name.tile}, one row each",
        "file:size": file.object.size,
        "file:checksum": _checksum(file),
    }
    to_collection = {"href": "../collection.json", "type": parts.JSON}
    links = [{"rel": rel, **to_collection} for rel in ("root", "parent", "collection")]
    links.append({"rel": "emb:model", "href": "../model.json", "type": parts.GEOJSON, "title": "The model"})
    if source := common_folder(rows["source_url"].to_pylist()):
        links.append({"rel": "emb:source-data", "href": source, "title": "The chips"})
    return parts.feature(
        id=file.name.removesuffix(".gpq"),
        geometry=_hull(footprints),
        bbox=bounds_of(footprints),
        extensions=[parts.EMBEDDINGS, parts.PROCESSING, "file/v2.1.0", "grid/v1.1.0", parts.TABLE],
        properties=properties,
        links=links,
        assets={"embeddings": asset},
        collection=f"clay-embeddings-v{name.version:03}",
    )


def common_folder(urls: Sequence[str]) -> str:
    """Return the deepest folder that holds all URLs, with its slash."""
    shared = os.path.commonprefix(urls)  # noqa: RUF071 - cut at its last slash, which it keeps
    return shared[: shared.rfind("/") + 1]


def _hull(footprints: NDArray[np.object_]) -> shapely.Geometry:
    """Return the convex hull of footprints; one on each side of the antimeridian."""
    polygons = shapely.get_parts(footprints)
    west, _, east, _ = bounds_of(footprints)
    if west <= east:
        return shapely.orient_polygons(shapely.convex_hull(shapely.multipolygons(polygons)))
    positive = shapely.bounds(polygons)[:, 0] >= 0
    hulls = [shapely.convex_hull(shapely.multipolygons(polygons[side])) for side in (positive, ~positive)]
    return shapely.orient_polygons(shapely.multipolygons(hulls))


def _checksum(file: SourceFile) -> str:
    """Return the SHA-256 of a file as a multihash in hexadecimal."""
    digest = hashlib.sha256()
    with closing(file.store.open(file.object)) as source:
        while piece := source.read(8 * 2**20):
            digest.update(piece)
    return f"1220{digest.hexdigest()}"  # 12: SHA-256; 20: its 32 bytes


def _chip_pixels(tile: str, footprints: NDArray[np.object_]) -> int | None:
    """Return the pixels along a chip's side from the median area in UTM; None if not a whole number."""
    to_metres = pyproj.Transformer.from_crs(CRS, utm_zone(tile), always_xy=True)
    flat = shapely.transform(footprints, lambda xy: np.stack(to_metres.transform(*xy.T), axis=1))
    side = float(np.median(np.sqrt(shapely.area(flat)) / PIXEL))
    return round(side) if np.isfinite(side) and side >= 1 and abs(side - round(side)) < 0.01 * side else None
