"""The catalog of a version in a store: `v001/collection.json`, `v001/items/…`, and what mends it.

    v001/collection.json   the Collection, with a link to each Item
    v001/model.json        the network
    v001/items.parquet     all Items as a table
    v001/mean.json         the collection's mean vector, for centred similarity
    v001/items/27WXN_20200615_20200908_v001.json, .png

The file is published first, its Item after: an interrupted run leaves a file without an Item, which the next
`publish_item` or `write_collection` adds.
"""

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import shapely
from PIL import Image

from clay_assets.publishing import PublishedName, parse_published_name
from clay_assets.reading.facts import Facts
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import at_once, footers
from clay_assets.reading.selection import boxes_of
from clay_assets.search.similarity import collection_mean
from clay_assets.stac.collection import collection
from clay_assets.stac.described import common_folder, describe
from clay_assets.stac.item import Json, item
from clay_assets.stac.mirror import items_table
from clay_assets.stac.model import model_item
from clay_assets.storage import FolderMissing, ObjectMissing, Store

JPEG = "data:image/jpeg;base64,"


@dataclass(frozen=True)
class Catalogued:
    """What `write_collection` wrote.

    Attributes:
        url: Of the Collection.
        items: In it.
        rows: Embeddings that they describe.
        added: Names of files whose Item was missing and is there now.
    """

    url: str
    items: int
    rows: int
    added: list[str]


def collection_id(version: int) -> str:
    """Of a version's Collection."""
    return f"clay-embeddings-v{version:03}"


def publish_item(
    output: Store,
    stac: Store,
    name: str,
    *,
    picture: str = "",
    energy: Mapping[str, Any] | None = None,
    made: datetime | None = None,
) -> str:
    """Write the Item of a published file, unless it is there and describes this very file.

    Items of earlier files of the same tile and version, which have other dates, are removed.

    Args:
        output: Where published files are.
        stac: Where the catalog is.
        name: Of the file.
        picture: The tile's picture as Markdown with a JPEG in it, as its results have it; becomes a PNG.
        energy: `emb:energy`, where it was measured.
        made: When the embeddings were made; now where None.

    Returns:
        The Item's URL.

    Raises:
        ValueError, DamagedFileError, StorageError: As `describe`.
    """
    parsed = parse_published_name(name)
    if parsed is None:
        raise ValueError(f"got the file {name!r}; expected a name such as 27WXN_20200101_20231231_v001.gpq")
    key = _item_key(parsed)
    earlier = _read_item(stac, key)
    size = output.stat(name).size
    current = earlier is not None and earlier["assets"]["embeddings"]["file:size"] == size
    drawn = key.removesuffix(".json") + ".png"
    if not (current and _made_from(earlier) == _inputs(output, name) and (not picture or stac.exists(drawn))):
        file = describe(output, name)
        if picture:
            stac.write(drawn, thumbnail(picture))
        there = picture or stac.exists(drawn)
        described = item(
            file,
            collection=collection_id(parsed.version),
            href=_href(output.url(name), stac.url(key)),
            made=made or datetime.now(UTC),
            thumbnail=PurePosixPath(drawn).name if there else "",
            energy=energy,
        )
        stac.write(key, _json(described))
    _remove_others(stac, parsed, key)
    return stac.url(key)


def write_collection(
    output: Store,
    stac: Store,
    *,
    version: int,
    license: str = "proprietary",
    description: str = "",
    checkpoint: str = "",
) -> Catalogued:
    """Write a version's Collection, its table of Items, the model and the mean vector.

    From footers and Items alone; only a file without an Item is read. Items of files that are gone go.

    Args:
        output: Where published files are.
        stac: Where the catalog is.
        version: Of the published data.
        license: SPDX identifier, `proprietary` or `various`.
        description: Of the Collection, in Markdown.
        checkpoint: URL of the weights, if they may be had.

    Raises:
        ValueError: No file of this version is published.
        MixedEmbeddings: The files are of several models or levels.
        StorageError: A store refuses.
    """
    files = _published(output, version)
    names = [file.name for file in files]
    keys = [_item_key(parsed) for name in names if (parsed := parse_published_name(name))]
    added = [name for name, key in zip(names, keys, strict=True) if not stac.exists(key)]
    for name in added:
        publish_item(output, stac, name)
    items: list[Json] = [json.loads(data) for data in at_once(stac.read, keys)]
    facts = footers(files)
    sources = [link["href"] for one in items for link in one["links"] if link["rel"] == "emb:source-data"]
    root = f"v{version:03}"
    made = collection(
        items,
        id=collection_id(version),
        license=license,
        source=common_folder(sources) or "not said",
        description=description,
        hrefs=[key.removeprefix(f"{root}/") for key in keys],
    )
    stac.write(f"{root}/items.parquet", items_table(items, made))
    stac.write(f"{root}/mean.json", _json(_mean(files, facts)))
    stac.write(f"{root}/model.json", _json(model_item(facts[0], extent=_extent(made), checkpoint=checkpoint)))
    stac.write(f"{root}/collection.json", _json(made))
    for found in stac.list(f"{root}/items/"):
        if PurePosixPath(found.url).stem not in {name.removesuffix(".gpq") for name in names}:
            stac.delete(found)
    rows = sum(fact.rows for fact in facts)
    return Catalogued(stac.url(f"{root}/collection.json"), len(items), rows, added)


def thumbnail(picture: str) -> bytes:
    """The picture within Markdown as a PNG.

    Raises:
        ValueError: There is no JPEG in it.
    """
    _, found, rest = picture.partition(JPEG)
    if not found:
        raise ValueError(f"got a picture without {JPEG}; expected Markdown as `tile_picture` makes it")
    buffer = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(rest.partition(")")[0]))).save(buffer, "PNG")
    return buffer.getvalue()


def _published(output: Store, version: int) -> list[SourceFile]:
    try:
        listed = [SourceFile(output, found) for found in output.list() if found.url.endswith(".gpq")]
    except FolderMissing:
        listed = []
    names = [(file, parse_published_name(file.name)) for file in listed]
    files = [file for file, name in names if name is not None and name.version == version]
    if not files:
        raise ValueError(f"{output.uri} has no published file of version {version}; publish a tile first")
    return files


def _mean(files: Sequence[SourceFile], facts: Sequence[Facts]) -> Json:
    mean = collection_mean(files, facts, facts[0].shape[-1])
    numbers = [float(str(value)) for value in mean.astype(np.float32)]
    return {"rows": sum(fact.rows for fact in facts), "dimensions": len(numbers), "mean": numbers}


def _extent(made: Json) -> Json:
    box = made["extent"]["spatial"]["bbox"][0]
    start, end = made["extent"]["temporal"]["interval"][0]
    parts = [shapely.box(*part) for part in boxes_of(tuple(box))]
    outline = json.loads(shapely.to_geojson(shapely.union_all(parts)))
    return {"geometry": outline, "bbox": box, "start_datetime": start, "end_datetime": end}


def _item_key(name: PublishedName) -> str:
    return f"v{name.version:03}/items/{str(name).removesuffix('.gpq')}.json"


def _read_item(stac: Store, key: str) -> Json | None:
    try:
        found: Json = json.loads(stac.read(key))
        found["assets"]["embeddings"]["file:size"], found["properties"]
    except (ObjectMissing, ValueError, KeyError, TypeError):  # what is no Item of ours is written over
        return None
    return found


def _made_from(described: Json | None) -> str | None:
    return described["properties"].get("clay:inputs") if described else None


def _inputs(output: Store, name: str) -> str | None:
    return footers([SourceFile(output, output.stat(name))])[0].provenance.get("inputs")


def _remove_others(stac: Store, name: PublishedName, key: str) -> None:
    for found in stac.list(f"v{name.version:03}/items/{name.tile}_"):
        if PurePosixPath(found.url).stem != PurePosixPath(key).stem:
            stac.delete(found)


def _href(file: str, item: str) -> str:
    """The file as seen from its Item: relative where both are local, so that a copied disk keeps working."""
    if "://" in file or "://" in item:
        return file
    return os.path.relpath(file, os.path.dirname(item))  # noqa: PTH120 - os.path has the other half of it too


def _json(described: Json) -> bytes:
    return (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode()
