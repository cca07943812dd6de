"""A published file as an Item needs it: footer, outline of its rows, size and checksum."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyproj
import shapely
from numpy.typing import NDArray

from clay_assets.chips.antimeridian import bounds_of
from clay_assets.publishing import PublishedName, parse_published_name
from clay_assets.publishing.schema import CRS, Bounds
from clay_assets.reading.facts import Facts, facts_of
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import opened
from clay_assets.storage import Store
from clay_assets.tiles.bounds import utm_zone

PIECE = 8 * 2**20
"""Bytes hashed at a time."""

PIXEL = 10.0
"""Metres on the ground along a pixel's side, in every chip this package reads."""


@dataclass(frozen=True, eq=False)
class Described:
    """A published file.

    Attributes:
        name: Taken apart.
        url: Full URL, or absolute path.
        size: Bytes.
        checksum: SHA-256 of the file as a multihash in hexadecimal, as `file:checksum` wants it.
        facts: Of its footer.
        columns: Name and Arrow type of each column.
        outline: Convex hull of the rows' outlines, degrees in OGC:CRS84; one on either side of the
            antimeridian.
        bounds: Of the rows' outlines; west above east where they lie across the antimeridian.
        first: Earliest acquisition.
        last: Latest acquisition.
        source: URL of the folder that holds all the chips.
        chip_pixels: Along a chip's side; None where its outlines do not agree on it.
    """

    name: PublishedName
    url: str
    size: int
    checksum: str
    facts: Facts
    columns: list[tuple[str, str]]
    outline: shapely.Geometry
    bounds: Bounds
    first: date
    last: date
    source: str
    chip_pixels: int | None

    @property
    def id(self) -> str:
        """Of the Item: the file's name without its ending."""
        return str(self.name).removesuffix(".gpq")


def describe(output: Store, name: str) -> Described:
    """Look at a published file: its footer and its rows without their vectors; its bytes once, to hash them.

    Args:
        output: Where published files are.
        name: Of the file.

    Raises:
        ValueError: The name is no published file's, or the file has no embeddings.
        DamagedFileError: It can't be read as Parquet.
        StorageError: The store refuses.
    """
    parsed = parse_published_name(name)
    if parsed is None:
        raise ValueError(f"got the file {name!r}; expected a name such as 27WXN_20200101_20231231_v001.gpq")
    file = SourceFile(output, output.stat(name))
    with opened(file) as parquet:
        facts = facts_of(parquet)
        if not facts.shape:
            raise ValueError(f"{file.url} has lists as embeddings; expected tensors, as published files have")
        rows = parquet.read(columns=["source_url", "date", "geometry"])
        columns = [(field.name, str(field.type)) for field in parquet.schema_arrow]
    outlines = shapely.from_wkb(rows["geometry"].to_numpy())
    days = pc.min_max(rows["date"]).as_py()
    return Described(
        name=parsed,
        url=file.url,
        size=file.object.size,
        checksum=_checksum(file),
        facts=facts,
        columns=columns,
        outline=_hull(outlines),
        bounds=bounds_of(outlines),
        first=days["min"],
        last=days["max"],
        source=common_folder(rows["source_url"]),
        chip_pixels=_chip_pixels(parsed.tile, outlines),
    )


def _hull(outlines: NDArray[np.object_]) -> shapely.Geometry:
    parts = shapely.get_parts(outlines)
    west, _, east, _ = bounds_of(outlines)
    if west <= east:
        return shapely.orient_polygons(shapely.convex_hull(shapely.multipolygons(parts)))
    positive = shapely.bounds(parts)[:, 0] >= 0
    hulls = [shapely.convex_hull(shapely.multipolygons(parts[side])) for side in (positive, ~positive)]
    return shapely.orient_polygons(shapely.multipolygons(hulls))


def common_folder(urls: pa.ChunkedArray | Sequence[str]) -> str:
    """The deepest folder that holds all of some URLs, with its slash."""
    texts = urls.to_pylist() if isinstance(urls, pa.ChunkedArray) else list(urls)
    low, high = min(texts), max(texts)
    shared = next(
        (at for at, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low)
    )
    return low[: low.rfind("/", 0, shared) + 1]


def _checksum(file: SourceFile) -> str:
    digest = hashlib.sha256()
    with closing(file.store.open(file.object)) as source:
        while piece := source.read(PIECE):
            digest.update(piece)
    return f"1220{digest.hexdigest()}"  # 12: SHA-256; 20: its 32 bytes


def _chip_pixels(tile: str, outlines: np.ndarray) -> int | None:
    """Along a chip's side, from the middle one of all outlines' areas in the tile's UTM zone."""
    to_metres = pyproj.Transformer.from_crs(CRS, utm_zone(tile), always_xy=True)
    flat = shapely.transform(outlines, lambda xy: np.stack(to_metres.transform(*xy.T), axis=1))
    sides = np.sqrt(shapely.area(flat)) / PIXEL
    side = float(np.median(sides))
    return round(side) if np.isfinite(side) and side >= 1 and abs(side - round(side)) < 0.01 * side else None
