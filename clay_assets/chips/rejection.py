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

COMPRESSIONS = ("NONE", "DEFLATE", "LZW", "ZSTD", "PACKBITS")  # by GDAL's names: lossless and common

# Pixels. Longest side of a strip or tile, twice a chip's: 54 MB of interleaved float32. Smallest area: a chip
# in millions of tiny blocks would take minutes.
BLOCK_SIDE, BLOCK_AREA = 1024, 256

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
    """Raise `ChipRejected` with the first reason found, and a message with all problems."""
    found = [*_problems_of_samples(header, spec), *_problems_of_tags(header, date)]
    if found:
        raise ChipRejected(found[0][0], "; ".join(message for _, message in found))


def band_order(descriptions: Sequence[str | None], bands: Sequence[str]) -> list[int]:
    """Return each band's index in a file: by name if the file names its bands, else by position.

    A file that names only some of them is refused by `check_header`.
    """
    if not any(descriptions):
        return [*range(len(bands))]
    positions = {(text or "").strip().casefold(): index for index, text in enumerate(descriptions)}
    return [positions[band.casefold()] for band in bands]


def _problems_of_samples(header: Header, spec: ModelSpec) -> Iterator[tuple[Reason, str]]:
    """Check the number of pixels and bands, and how they are stored."""
    sides = [*range(spec.window_size, CHIP_SIZE + 1, spec.window_size)]
    if header.width != header.height or header.width not in sides:
        expected = " or ".join(f"{side} x {side}" for side in sides)
        yield "size", f"has {header.width} x {header.height} pixels, expected {expected}"

    counts = sorted({len(spec.bands), len(BANDS)})  # the first ten bands of a chip of Clay v0 are v1.5's
    if len(header.dtypes) not in counts:
        yield "bands", f"has {len(header.dtypes)} bands, expected {' or '.join(map(str, counts))}"
    elif any(header.descriptions):
        names = [(text or "").strip() for text in header.descriptions]
        known = {name.casefold() for name in names}
        missing = ", ".join(band for band in spec.bands if band.casefold() not in known)
        if missing:
            got, expected = quoted(", ".join(names), 200), ", ".join(spec.bands)
            yield "bands", f"has no band named {missing} among {got}, expected {expected}, each once"

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


def _problems_of_tags(header: Header, date: datetime.date) -> Iterator[tuple[Reason, str]]:
    """Check scales and offsets, date and georeference."""
    # Scales and offsets are refused rather than applied: the result need not be in the network's units. Many
    # Sentinel-2 files declare 0.0001, although the network takes reflectance x 10,000.
    scaled = sorted({*zip(header.scales, header.offsets, strict=True)} - {(1.0, 0.0)})
    if scaled:
        got = " and ".join(f"scale {scale:g}, offset {offset:g}" for scale, offset in scaled[:3])
        yield "scale", f"has {got}, expected 1, 0: samples in the network's units, without these tags"

    tag = header.tags.get("date")
    if tag is None:
        yield "date", f"has no tag `date`, expected {date} as in its name"
    elif tag != date.isoformat():
        yield "date", f"has {quoted(tag)} as its tag `date`, expected {date} as in its name"

    if not header.crs:
        yield "crs", "has no coordinate reference system, expected one, such as a UTM zone"
    transform = header.transform
    if transform.is_identity:
        yield "crs", "has no geotransform, expected an origin and a pixel size"
    elif not all(map(math.isfinite, transform)) or transform.is_degenerate:
        yield "crs", f"has geotransform {tuple(transform)[:6]}, expected finite numbers that span a plane"
