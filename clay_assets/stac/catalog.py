"""The catalog of a version in a store.

    v001/collection.json   the Collection, with a link to each Item
    v001/model.json        the network
    v001/items.parquet     all Items as a table
    v001/mean.json         the collection's mean vector, for centred similarity
    v001/items/27WXN_20200615_20200908_v001.json, .png

The Item is written after its file: an interrupted run leaves a file without an Item, which the next
`publish_item` or `write_collection` adds. Both raise `StorageError` if a store refuses.
"""

import base64
import io
import json
import os
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clay_assets.publishing.versions import published_files
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import footers, in_parallel
from clay_assets.search.similarity import collection_mean
from clay_assets.stac.collection import collection, items_table, model_item
from clay_assets.stac.item import file_item, parsed_name
from clay_assets.stac.parts import Json, as_bytes
from clay_assets.storage import ObjectMissing, Store


class Catalogued(NamedTuple):
    """Result of `write_collection`."""

    url: str  # of the Collection
    items: int
    rows: int  # embeddings
    added: list[str]  # names of files whose Item was missing and was added


def publish_item(
    output: Store, stac: Store, name: str, *, picture: str = "", energy: Mapping[str, Any] | None = None
) -> str:
    """Write the Item of a published file, unless it exists and describes this version of the file.

    Removes Items of earlier files of the same tile and version, which have other dates in their names.
    `picture` is that of the tile's results, Markdown with a JPEG in it, and is written as a PNG; `energy` is
    `emb:energy`, None if it was not measured. Returns the Item's URL; raises as `file_item`.
    """
    parsed, stem = parsed_name(name), name.removesuffix(".gpq")
    folder = f"v{parsed.version:03}/items"
    key, thumbnail = f"{folder}/{stem}.json", f"{folder}/{stem}.png"
    file = SourceFile(output, output.stat(name))
    drawn = stac.exists(thumbnail)
    if not _is_current(stac, key, file) or (picture and not drawn):
        href = file.url
        if output.is_local and stac.is_local:  # a relative address, so that a copied disk works
            href = os.path.relpath(href, os.path.dirname(stac.url(key)))  # noqa: PTH120 - like os.path.relpath
        item = file_item(file, href=href, made=datetime.now(UTC))
        if energy:
            item["properties"]["emb:energy"] = dict(energy)
        if picture or drawn:
            item["assets"]["thumbnail"] = {"href": f"{stem}.png", "type": "image/png", "roles": ["thumbnail"]}
        if picture:
            stac.write(thumbnail, as_png(picture))
        stac.write(key, as_bytes(item))
    _keep_only(stac, f"{folder}/{parsed.tile}_", {stem})
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

    Reads footers and Items, and whole files only if they have no Item. Removes Items of removed files.
    `license` is an SPDX identifier, `proprietary` or `various`; `description` is Markdown, "" for a default
    one; `checkpoint` is the URL of the weights, if others may have them.

    Raises:
        ValueError: No file of this version is published.
        MixedEmbeddings: The files are of several models or levels.
    """
    found = published_files(output, version)
    files = [SourceFile(output, file) for tile in sorted(found) for file in found[tile]]
    if not files:
        raise ValueError(f"{output.uri} has no published file of version {version}; publish a tile first")
    root = f"v{version:03}"
    keys = {file.name: f"{root}/items/{file.name.removesuffix('.gpq')}.json" for file in files}
    added = [name for name, key in keys.items() if not stac.exists(key)]
    for name in added:
        publish_item(output, stac, name)
    items: list[Json] = [json.loads(data) for data in in_parallel(stac.read, keys.values())]
    facts = footers(files)
    hrefs = [key.removeprefix(f"{root}/") for key in keys.values()]
    described = collection(items, hrefs, license=license, description=description)
    rows = sum(fact.rows for fact in facts)
    mean = collection_mean(facts, facts[0].shape[-1]).astype(np.float32)
    numbers = [float(str(number)) for number in mean]
    stac.write(f"{root}/items.parquet", items_table(items, described))
    stac.write(f"{root}/mean.json", as_bytes({"rows": rows, "dimensions": len(numbers), "mean": numbers}))
    stac.write(f"{root}/model.json", as_bytes(model_item(facts[0], described["extent"], checkpoint)))
    stac.write(f"{root}/collection.json", as_bytes(described))
    _keep_only(stac, f"{root}/items/", {PurePosixPath(key).stem for key in keys.values()})
    return Catalogued(stac.url(f"{root}/collection.json"), len(items), rows, added)


def as_png(picture: str) -> bytes:
    """Return the JPEG within Markdown as a PNG; raise ValueError if it has none."""
    start = "data:image/jpeg;base64,"
    _, found, rest = picture.partition(start)
    if not found:
        raise ValueError(f"got a picture without {start}; expected Markdown as `tile_picture` returns it")
    buffer = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(rest.partition(")")[0]))).save(buffer, "PNG")
    return buffer.getvalue()


def _is_current(stac: Store, key: str, file: SourceFile) -> bool:
    """Return whether the Item exists and describes this version of the file, by its size and its footer."""
    try:
        item = json.loads(stac.read(key))
        size, inputs = item["assets"]["embeddings"]["file:size"], item["properties"].get("clay:inputs")
    except (ObjectMissing, ValueError, KeyError, TypeError):  # not written by this package: overwrite it
        return False
    return bool(size == file.object.size and inputs == footers([file])[0].provenance.get("inputs"))


def _keep_only(stac: Store, prefix: str, stems: Collection[str]) -> None:
    """Remove objects whose name without its ending is not among `stems`."""
    for found in stac.list(prefix):
        if PurePosixPath(found.url).stem not in stems:
            stac.delete(found)
