"""`read_chip`: a chip's name and bytes in; pixels in the network's band order, date and place out."""

import datetime
import re
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from clay_assets.chips.directory import GeoTiffError, NotTiffError
from clay_assets.chips.geotiff import Header, read_header, read_samples
from clay_assets.chips.pixels import MAX_NODATA, check_pixels
from clay_assets.chips.place import Place, locate
from clay_assets.chips.rejection import ChipRejected, band_order, check_header, quoted
from clay_assets.tiles import TILE_PATTERN
from clay_model.spec import V0, ModelSpec

# Increase it when this package learns to read files that it refused before. Chips that an older reader
# skipped are then read again; vectors are kept. A change of the pixels that are read increases the model's
# `preprocessing_version` instead.
READER_VERSION = 1

CHIP_NAME = re.compile(rf"claytile_({TILE_PATTERN})_([0-9]{{8}})_v([0-9]{{2,}})_([0-9]{{4,}})\.tif")


class ChipName(NamedTuple):
    """A parsed file name."""

    tile: str  # MGRS code, e.g. 27WXN
    date: datetime.date  # of acquisition
    version: str  # of the chips' processing, e.g. 02
    number: int  # position within tile and date

    @classmethod
    def parse(cls, name: str, *, tile: str | None = None) -> Self:
        """Parse a file name or URL, which must name `tile` unless that is None; else raise `ChipRejected`."""
        base = name.rsplit("/", 1)[-1]
        match = CHIP_NAME.fullmatch(base)
        if match is None:
            raise _refusal(base, "claytile_{MGRS}_{YYYYMMDD}_v{VV}_{NNNN}.tif")
        found, day, version, number = match.groups()
        if tile is not None and found != tile:
            raise _refusal(base, f"a chip of tile {tile}, like its folder")
        try:
            date = datetime.date.fromisoformat(day)
        except ValueError as error:
            raise _refusal(base, f"a day of the calendar: {error}") from error
        return cls(found, date, version, int(number))


def _refusal(base: str, expected: str) -> ChipRejected:
    return ChipRejected("name", f"is named {quoted(base)}, expected {expected}")


@dataclass(frozen=True, eq=False)
class Chip:
    """A chip ready to be embedded."""

    # (bands, side, side) within `pixels.LIMITS`, in the order of the model's bands and in their physical
    # units; float32, or the file's own integers if they have 8 or 16 bits: half the bytes to copy to a
    # device, which converts them to the same float32. Any memory layout: for the bucket's files a view of
    # (side, side, bands), whose bands the copy into a batch separates.
    pixels: NDArray[Any]
    date: datetime.date  # of acquisition
    # Of acquisition, UTC, from the tag `datetime`; None if the file has none or the model does not use it.
    time: datetime.datetime | None
    windows: tuple[Place, ...]  # of the model's windows, row by row
    # Share of pixels without data, 0 to 1: an optical band holds the file's own no-data value or one of
    # `pixels.FILLS`, or all optical bands are 0. SAR and dem do not count: 0 is a measurement there, and fill
    # values are out of range.
    nodata: float


def read_chip(
    data: bytes, name: str, *, spec: ModelSpec = V0, tile: str | None = None, max_nodata: float = MAX_NODATA
) -> Chip:
    """Decode a chip. Thread-safe; nearly all of its time is spent without the GIL.

    Args:
        data: The whole file.
        name: File name or URL.
        spec: The model that is to embed it.
        tile: MGRS code of the tile that it was listed for; None: any tile.
        max_nodata: Highest share of pixels without data, 0 to 1.

    Raises:
        ChipRejected: If it cannot be embedded.
    """
    date = ChipName.parse(name, tile=tile).date
    try:
        header = read_header(data)
        check_header(header, date, spec)
        time = _time(header, date) if spec.time_of_day else None
        windows = locate(header, spec.window_size)
        samples = read_samples(data, header)
    except NotTiffError as error:
        raise ChipRejected("format", str(error)) from error
    except GeoTiffError as error:
        raise ChipRejected("corrupt", str(error)) from error
    order = band_order(header.descriptions, spec.bands)
    nodata = check_pixels(samples, dict(zip(spec.bands, order, strict=True)), header.nodata, max_nodata)
    pixels = samples if order == [*range(len(samples))] else samples[order]
    small = pixels.dtype in (np.uint8, np.int16, np.uint16)  # NumPy's types that PyTorch has too
    return Chip(pixels if small else pixels.astype(np.float32, copy=False), date, time, windows, nodata)


def _time(header: Header, date: datetime.date) -> datetime.datetime | None:
    """Parse the moment of acquisition from the tag `datetime`: ISO 8601, in UTC if it has no time zone."""
    tag = header.tags.get("datetime")
    if tag is None:
        return None
    try:
        time = datetime.datetime.fromisoformat(tag.strip())
        time = (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except (ValueError, OverflowError) as error:
        raise ChipRejected(
            "date", f"has {quoted(tag)} as its tag `datetime`, expected ISO 8601 in UTC: {error}"
        ) from error
    if time.date() != date:
        raise ChipRejected("date", f"has {quoted(tag)} as its tag `datetime`, expected {date} as in its name")
    return time
