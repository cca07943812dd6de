"""A chip's bytes into pixels in the network's band order, with its date and place."""

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.chips.directory import GeoTiffError, NotTiffError
from clay_assets.chips.geotiff import read_header, read_samples
from clay_assets.chips.name import ChipName
from clay_assets.chips.place import locate
from clay_assets.chips.rejection import ChipRejected, band_order, check_header
from clay_model.spec import BANDS


@dataclass(frozen=True, eq=False)
class Chip:
    """A chip ready to be embedded.

    Attributes:
        pixels: (13, 512, 512) float32, finite, in the order of `BANDS` and in their physical units. Any
            memory layout: of the bucket's files it is a view of (512, 512, 13), and whoever copies it into
            a batch takes the bands apart in passing.
        date: Day of acquisition.
        lonlat: Of the centre, degrees in WGS 84, longitude first.
        footprint: Bounding box as a polygon in OGC:CRS84, reprojected corner by corner; WKB.
    """

    pixels: NDArray[np.float32]
    date: datetime.date
    lonlat: tuple[float, float]
    footprint: bytes


def read_chip(data: bytes, name: str) -> Chip:
    """Decode a chip. Safe from any thread, and nearly all of it outside the GIL.

    Args:
        data: The whole file.
        name: Its file name or URL.

    Raises:
        ChipRejected: If it cannot be embedded.
    """
    date = ChipName.parse(name).date
    try:
        header = read_header(data)
        check_header(header, date)
        place = locate(header)
        samples = read_samples(data, header)
    except NotTiffError as error:
        raise ChipRejected("format", str(error)) from error
    except GeoTiffError as error:
        raise ChipRejected("corrupt", str(error)) from error
    pixels = _in_band_order(samples, header.descriptions)
    _check_finite(pixels)
    return Chip(pixels.astype(np.float32, copy=False), date, place.lonlat, place.footprint)


def _in_band_order(samples: NDArray[Any], descriptions: tuple[str | None, ...]) -> NDArray[Any]:
    order = band_order(descriptions)
    return samples if order == sorted(order) else samples[order]


def _check_finite(pixels: NDArray[Any]) -> None:
    """Refuse pixels that are NaN or infinite.

    One such number makes the sum one too, and a sum reads the pixels once and writes nothing. It may also
    overflow; only then are the pixels looked at one by one.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if pixels.dtype.kind != "f" or np.isfinite(pixels.sum()):
            return
    counts = np.count_nonzero(~np.isfinite(pixels), axis=(1, 2))
    if counts.any():
        found = ", ".join(f"{count:,} in {band}" for band, count in zip(BANDS, counts, strict=True) if count)
        raise ChipRejected("nonfinite", f"has pixels that are NaN or infinite, expected none: {found}")
