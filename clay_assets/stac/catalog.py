"""The catalog of a version in a store.

    v001/collection.json   the Collection, with a link to each Item
    v001/model.json        the network
    v001/items.parquet     all Items as a table
    v001/mean.json         the collection's mean vector, for centred similarity
    v001/items/27WXN_20200615_20200908_v001.json, .png

The Item is written after its file: an interrupted run leaves a file without an Item, which the next
`publish_item` or `write_collection` adds.
"""

import base64
import io
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from clay_assets.publishing.versions import published_files
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import footers, in_parallel
from clay_assets.search.similarity import collection_mean
from clay_assets.stac.collection import collection
from clay_assets.stac.item import file_item, parsed_name
from clay_assets.stac.mirror import items_table
from clay_assets.stac.model import model_item
from clay_assets.stac.parts import Json, as_bytes
from clay_assets.storage import ObjectMissing, Store

JPEG = "data:image/jpeg;base64,"


@dataclass(frozen=True)
class Catalogued:
    """Result of `write_collection`.

    Attributes:
        url: URL of the Collection.
        items: Number of Items.
        rows: Number of embeddings.
        added: Names of files whose Item was missing and was added.
    """

    url: str
    items: int
    rows: int
    added: list[str]


def publish_item(
    output: Store,
    stac: Store,
    name: str,
    *,
    picture: str = "",
    energy: Mapping[str, Any] | None = None,
    made: datetime | None = None,
) -> str:
    """Write the Item of a published file, unless the Item exists and describes this version of the file.

    Removes Items of earlier files of the same tile and version, which have other dates in their names.

    Args:
        output: Store of published files.
        stac: Store of the catalog.
        name: Name of the file.
        picture: The tile's picture as Markdown with a JPEG in it, as in its results; written as a PNG.
        energy: `emb:energy`; None if it was not measured.
        made: When the embeddings were made; None for now.

    Returns:
        The Item's URL.

    Raises:
        ValueError, DamagedFileError, StorageError: As `file_item`.
    """
    parsed = parsed_name(name)
    stem = name.removesuffix(".gpq")
    key = _item_key(name)
    thumbnail = f"{stem}.png"
    thumbnail_key = str(PurePosixPath(key).with_name(thumbnail))
    drawn = stac.exists(thumbnail_key)
    if not _is_current(stac, key, SourceFile(output, output.stat(name))) or (picture and not drawn):
        item = file_item(
            output,
            name,
            href=_href(output.url(name), stac.url(key)),
            made=made or datetime.now(UTC),
            thumbnail=thumbnail if picture or drawn else "",
            energy=energy,
        )
        if picture:
            stac.write(thumbnail_key, as_png(picture))
        stac.write(key, as_bytes(item))
    _keep_only(stac, f"{PurePosixPath(key).parent}/{parsed.tile}_", {stem})
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

    Args:
        output: Store of published files.
        stac: Store of the catalog.
        version: Version of the published files.
        license: SPDX identifier, `proprietary` or `various`.
        description: Description of the Collection, in Markdown.
        checkpoint: URL of the weights, if others may have them.

    Raises:
        ValueError: No file of this version is published.
        MixedEmbeddings: The files are of several models or levels.
        StorageError: A store refuses.
    """
    found = published_files(output, version)
    files = [SourceFile(output, file) for tile in sorted(found) for file in found[tile]]
    if not files:
        raise ValueError(f"{output.uri} has no published file of version {version}; publish a tile first")
    keys = [_item_key(file.name) for file in files]
    added = [file.name for file, key in zip(files, keys, strict=True) if not stac.exists(key)]
    for name in added:
        publish_item(output, stac, name)
    items: list[Json] = [json.loads(data) for data in in_parallel(stac.read, keys)]
    facts = footers(files)
    root = f"v{version:03}"
    hrefs = [key.removeprefix(f"{root}/") for key in keys]
    described = collection(items, hrefs, license=license, description=description)
    rows = sum(fact.rows for fact in facts)
    mean = collection_mean(files, facts, facts[0].shape[-1]).astype(np.float32)
    numbers = [float(str(number)) for number in mean]
    model = model_item(
        facts[0],
        bbox=described["extent"]["spatial"]["bbox"][0],
        interval=described["extent"]["temporal"]["interval"][0],
        checkpoint=checkpoint,
    )
    stac.write(f"{root}/items.parquet", items_table(items, described))
    stac.write(f"{root}/mean.json", as_bytes({"rows": rows, "dimensions": len(numbers), "mean": numbers}))
    stac.write(f"{root}/model.json", as_bytes(model))
    stac.write(f"{root}/collection.json", as_bytes(described))
    _keep_only(stac, f"{root}/items/", {PurePosixPath(key).stem for key in keys})
    return Catalogued(stac.url(f"{root}/collection.json"), len(items), rows, added)


def as_png(picture: str) -> bytes:
    """Return the JPEG within Markdown as a PNG.

    Raises:
        ValueError: It has no JPEG.
    """
    _, found, rest = picture.partition(JPEG)
    if not found:
        raise ValueError(f"got a picture without {JPEG}; expected Markdown as `tile_picture` returns it")
    buffer = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(rest.partition(")")[0]))).save(buffer, "PNG")
    return buffer.getvalue()


def _item_key(name: str) -> str:
    return f"v{parsed_name(name).version:03}/items/{name.removesuffix('.gpq')}.json"


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


def _href(file: str, item: str) -> str:
    """Return the file's address relative to its Item if both are local, so that a copied disk works."""
    if "://" in file or "://" in item:
        return file
    return os.path.relpath(file, os.path.dirname(item))  # noqa: PTH120 - like os.path.relpath
