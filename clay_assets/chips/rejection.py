"""Refuses files by their header, and defines the reasons of all refusals.

The header is checked before any sample is decoded, so that no header decides how much memory is allocated;
all its problems are reported at once. Damage and bad pixels are found later (`deflate`, `pixels`).
"""

import datetime
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from clay_assets.chips.geotiff import Header
from clay_model.spec import BANDS, CHIP_SIZE, ModelSpec

COMPRESSIONS = ("NONE", "DEFLATE", "LZW", "ZSTD", "PACKBITS")
"""Accepted codecs, by GDAL's names: lossless and common."""

BLOCK_SIDE = 1024
"""Longest side of a strip or tile in pixels, twice a chip's: 54 MB of interleaved float32."""

BLOCK_AREA = 256
"""Fewest pixels of a strip or tile: a chip in millions of tiny blocks would take minutes."""

MAX_CHIP_BYTES = 64 * 2**20
"""Largest file, in bytes. A chip has 13.6 MB of float32 pixels, and no layout doubles that; a larger object
would only fill memory, once for each fetcher."""

Reason = Literal[
    "name", "format", "corrupt", "size", "bands", "type", "scale", "layout", "date", "crs",
    "nodata", "nonfinite", "range", "unreadable", "vector",
]  # fmt: skip
"""Why a file cannot be embedded; docs/chips.md explains each."""


class ChipRejected(Exception):
    """A file cannot be embedded; `reason` is the category, the message is one line of detail."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def quoted(text: str, longest: int = 60) -> str:
    """Escape and shorten text from a file for a one-line message."""
    return repr(text if len(text) <= longest else f"{text[: longest - 1]}…")


def check_header(header: Header, date: datetime.date, spec: ModelSpec) -> None:
    """Refuse a file by its header.

    Args:
        header: The file's header.
        date: Date in its name.
        spec: The model.

    Raises:
        ChipRejected: With the first reason found, and a message with all problems.
    """
    found = [
        *_shape(header, spec),
        *_bands(header, spec.bands),
        *_storage(header),
        *_scale(header),
        *_date(header, date),
        *_georeference(header),
    ]
    if found:
        raise ChipRejected(found[0][0], "; ".join(message for _, message in found))


def band_order(descriptions: Sequence[str | None], bands: Sequence[str]) -> list[int]:
    """Return each band's index in a file: by name if the file names its bands, else by position.

    Raises:
        KeyError: If the file names some of them only; `check_header` refuses such files.
    """
    if not any(descriptions):
        return [*range(len(bands))]
    positions = {(text or "").strip().casefold(): index for index, text in enumerate(descriptions)}
    return [positions[band.casefold()] for band in bands]


def _shape(header: Header, spec: ModelSpec) -> Iterator[tuple[Reason, str]]:
    sides = [*range(spec.window_size, CHIP_SIZE + 1, spec.window_size)]
    if header.width != header.height or header.width not in sides:
        expected = " or ".join(f"{side} x {side}" for side in sides)
        yield "size", f"has {header.width} x {header.height} pixels, expected {expected}"


def _bands(header: Header, bands: Sequence[str]) -> Iterator[tuple[Reason, str]]:
    # The first ten bands of a chip of Clay v0 are those of v1.5.
    counts = sorted({len(bands), len(BANDS)})
    if len(header.dtypes) not in counts:
        yield "bands", f"has {len(header.dtypes)} bands, expected {' or '.join(map(str, counts))}"
    elif any(header.descriptions):
        names = [(text or "").strip() for text in header.descriptions]
        known = {name.casefold() for name in names}
        missing = [band for band in bands if band.casefold() not in known]
        if missing:
            got, expected = quoted(", ".join(names), 200), ", ".join(bands)
            yield (
                "bands",
                f"has no band named {', '.join(missing)} among {got}, expected {expected}, each once",
            )


def _storage(header: Header) -> Iterator[tuple[Reason, str]]:
    types = sorted(set(header.dtypes))
    if types != ["float32"] and (len(types) != 1 or np.dtype(types[0]).kind not in "iu"):
        yield "type", f"has samples of type {' and '.join(types)}, expected float32 or one integer type"
    if header.compression not in COMPRESSIONS:
        expected = ", ".join(COMPRESSIONS)
        yield "layout", f"is compressed by {quoted(header.compression)}, expected one of {expected}"
    rows, columns = header.block
    if max(rows, columns) > BLOCK_SIDE or rows * columns < BLOCK_AREA:
        expected = f"sides of at most {BLOCK_SIDE:,} and at least {BLOCK_AREA} pixels in all"
        yield "layout", f"has blocks of {columns:,} x {rows:,} pixels, expected {expected}"


def _scale(header: Header) -> Iterator[tuple[Reason, str]]:
    """Refuse a scale or offset rather than apply it: the result need not be in the network's units.

    Many Sentinel-2 files declare 0.0001, although the network takes reflectance x 10,000.
    """
    scaled = sorted({*zip(header.scales, header.offsets, strict=True)} - {(1.0, 0.0)})
    if scaled:
        got = " and ".join(f"scale {scale:g}, offset {offset:g}" for scale, offset in scaled[:3])
        yield (
            "scale",
            f"has {got}, expected 1, 0: samples in the network's units, without these tags",
        )


def _date(header: Header, date: datetime.date) -> Iterator[tuple[Reason, str]]:
    tag = header.tags.get("date")
    if tag is None:
        yield "date", f"has no tag `date`, expected {date} as in its name"
    elif tag != date.isoformat():
        yield "date", f"has {quoted(tag)} as its tag `date`, expected {date} as in its name"


def _georeference(header: Header) -> Iterator[tuple[Reason, str]]:
    if not header.crs:
        yield "crs", "has no coordinate reference system, expected one, such as a UTM zone"
    transform = header.transform
    if transform.is_identity:
        yield "crs", "has no geotransform, expected an origin and a pixel size"
    elif not all(map(math.isfinite, transform)) or transform.is_degenerate:
        yield "crs", f"has geotransform {tuple(transform)[:6]}, expected finite numbers that span a plane"
