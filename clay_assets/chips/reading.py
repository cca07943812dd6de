"""A chip's bytes into pixels in the network's band order, with its date and place."""

import datetime
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clay_assets.chips.directory import GeoTiffError, NotTiffError
from clay_assets.chips.geotiff import read_header, read_samples
from clay_assets.chips.limits import MAX_NODATA
from clay_assets.chips.name import ChipName
from clay_assets.chips.pixels import check_pixels
from clay_assets.chips.place import locate
from clay_assets.chips.rejection import ChipRejected, band_order, check_header

READER_VERSION = 1
"""Raised when this package learns to read a file that it refused before.

What an older reader skipped is then read again; vectors are kept. A change that makes other pixels of a file
is not of this kind: it raises `clay_model.spec.PREPROCESSING_VERSION`.
"""


@dataclass(frozen=True, eq=False)
class Chip:
    """A chip ready to be embedded.

    Attributes:
        pixels: (13, 512, 512) float32, within `limits`, in the order of `BANDS` and in their physical
            units. Any memory layout: of the bucket's files it is a view of (512, 512, 13), and whoever copies
            it into a batch takes the bands apart in passing.
        date: Day of acquisition.
        lonlat: Of the centre, degrees in WGS 84, longitude first.
        footprint: Bounding box as a polygon in OGC:CRS84, reprojected corner by corner; WKB.
        nodata: Share of its pixels without data, 0 to 1. Those are pixels where an optical band holds the
            file's own no-data value or one of `limits.FILLS`, or where all optical bands are 0. SAR and dem
            do not count: there 0 is a measurement, and whatever is none is out of range.
    """

    pixels: NDArray[np.float32]
    date: datetime.date
    lonlat: tuple[float, float]
    footprint: bytes
    nodata: float


def read_chip(data: bytes, name: str, *, tile: str | None = None, max_nodata: float = MAX_NODATA) -> Chip:
    """Decode a chip. Safe from any thread, and nearly all of it outside the GIL.

    Args:
        data: The whole file.
        name: Its file name or URL.
        tile: MGRS code of the tile that it was listed for; None: any will do.
        max_nodata: Highest share of pixels without data, 0 to 1.

    Raises:
        ChipRejected: If it cannot be embedded.
    """
    date = ChipName.parse(name, tile=tile).date
    try:
        header = read_header(data)
        check_header(header, date)
        place = locate(header)
        samples = read_samples(data, header)
    except NotTiffError as error:
        raise ChipRejected("format", str(error)) from error
    except GeoTiffError as error:
        raise ChipRejected("corrupt", str(error)) from error
    order = band_order(header.descriptions)
    pixels = samples if order == sorted(order) else samples[order]
    nodata = check_pixels(pixels, header.nodata, max_nodata)
    return Chip(pixels.astype(np.float32, copy=False), date, place.lonlat, place.footprint, nodata)
