"""`read_chip`: a chip's bytes in; pixels in the network's band order, date and place out."""

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.chips.directory import GeoTiffError, NotTiffError
from clay_assets.chips.geotiff import Header, read_header, read_samples
from clay_assets.chips.limits import MAX_NODATA
from clay_assets.chips.name import ChipName
from clay_assets.chips.pixels import check_pixels
from clay_assets.chips.place import Place, locate
from clay_assets.chips.rejection import ChipRejected, band_order, check_header, quoted
from clay_model.spec import V0, ModelSpec

READER_VERSION = 1
"""Increase it when this package learns to read files that it refused before.

Chips that an older reader skipped are then read again; vectors are kept. A change of the pixels that are read
increases the model's `preprocessing_version` instead.
"""


@dataclass(frozen=True, eq=False)
class Chip:
    """A chip ready to be embedded.

    Attributes:
        pixels: (bands, side, side) within `limits`, in the order of the model's bands and in their physical
            units; float32, or the file's own integers if they have 8 or 16 bits: half the bytes to copy to a
            device, which converts them to the same float32. Any memory layout: for the bucket's files a view
            of (side, side, bands), whose bands the copy into a batch separates.
        date: Day of acquisition.
        time: Moment of acquisition, UTC, from the tag `datetime`; None if the file has none or the model does
            not use it.
        windows: Places of the model's windows, row by row.
        nodata: Share of pixels without data, 0 to 1: an optical band holds the file's own no-data value or
            one of `limits.FILLS`, or all optical bands are 0. SAR and dem do not count: 0 is a measurement
            there, and fill values are out of range.
    """

    pixels: NDArray[Any]
    date: datetime.date
    time: datetime.datetime | None
    windows: tuple[Place, ...]
    nodata: float


def read_chip(
    data: bytes,
    name: str,
    *,
    spec: ModelSpec = V0,
    tile: str | None = None,
    max_nodata: float = MAX_NODATA,
) -> Chip:
    """Decode a chip. Thread-safe; nearly all of its time is spent without the GIL.

    Args:
        data: The whole file.
        name: Its file name or URL.
        spec: The model.
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
