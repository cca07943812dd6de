"""Reads the header and the samples of one GeoTIFF in memory. No other file is opened.

GDAL reads the header (georeferencing), once per kind of file. We inflate the samples of a deflated file
ourselves: GDAL verifies no checksum, splits every block into bands and locks its block cache for each
(`deflate` does not). GDAL reads the samples of all other files.

`rejection` judges what a chip must look like.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from xml.parsers import expat

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError, CPLE_OutOfMemoryError  # not public, but rasterio raises them
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.session import DummySession

from clay_assets.chips.deflate import inflate, verify
from clay_assets.chips.directory import (
    GDAL_METADATA,
    PIXEL_SCALE,
    STRIP_BYTE_COUNTS,
    STRIP_OFFSETS,
    TIE_POINT,
    TILE_BYTE_COUNTS,
    TILE_OFFSETS,
    Blocks,
    Directory,
    GeoTiffError,
)

NAME_IN_MEMORY = "chip.tif"
"""File name in messages, the same for all files, so that equal problems have equal messages."""

PLACEMENT = frozenset({TIE_POINT, STRIP_OFFSETS, STRIP_BYTE_COUNTS, TILE_OFFSETS, TILE_BYTE_COUNTS})
"""Tags whose values differ from chip to chip; `Header` has only the tie point of these."""

MAX_KNOWN, MAX_KNOWN_BYTES = 64, 1 << 16
"""Maximum number of cached headers, and maximum size of a directory that is cached."""

# By the GeoTIFF specification: https://docs.ogc.org/is/19-008r4/19-008r4.html
EPSG_LENGTHS, EPSG_ANGLES, USER_DEFINED_UNIT = range(9000, 9100), range(9100, 9200), 32_767
UNITS = {2052: EPSG_LENGTHS, 2054: EPSG_ANGLES, 3076: EPSG_LENGTHS, 4099: EPSG_LENGTHS}
"""Keys of a reference system that name a unit, and the accepted codes of each."""

_known: dict[bytes, "Header"] = {}
"""Headers by the content of the directory. A race of two threads only costs one more read."""

# A file without georeferencing is rejected with a reason. Ignoring the warning around a single call would
# change the filters of every thread.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


@dataclass(frozen=True)
class Header:
    """A GeoTIFF's metadata, known before any sample is decoded.

    Attributes:
        width: Columns.
        height: Rows.
        dtypes: NumPy's name of the sample type of each band.
        descriptions: Name of each band, None if the file has none.
        compression: GDAL's name of the codec in capitals, "NONE" without one.
        interleaved: Whether the samples of a pixel are stored together, rather than band by band.
        block: Rows and columns of a strip or tile, the unit of compression.
        crs: Coordinate reference system as WKT; "" if there is none.
        transform: From (column, row) to the CRS's coordinates; the identity if the file has none.
        nodata: Value that stands for no data in every band (a TIFF has one at most); None if there is none.
        scales: Scale of each band: physical values are samples x scale + offset; 1 if the file has none.
        offsets: Offset of each band; 0 if the file has none.
        tags: Metadata of the file as a whole.
    """

    width: int
    height: int
    dtypes: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    compression: str
    interleaved: bool
    block: tuple[int, int]
    crs: str
    transform: Affine
    nodata: float | None
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    tags: Mapping[str, str]


def read_header(data: bytes) -> Header:
    """Read a GeoTIFF's metadata; no sample is decoded.

    The headers of a tile's chips differ only in their tie point and their blocks, so GDAL opens only the
    first chip: opening takes 0.6 ms, most of it with the GIL held, and comparing two directories a tenth of
    that.

    Args:
        data: The whole file.

    Raises:
        NotTiffError: If the bytes are not a TIFF.
        GeoTiffError: If the directory is missing or damaged.
    """
    directory = Directory(data)
    tie, scale = directory.doubles(TIE_POINT), directory.doubles(PIXEL_SCALE)
    # (column, row, 0, x, y, 0). GDAL handles all other tie points: several, one inside the image, infinity,
    # one without a pixel size, which gives no place.
    simple = len(tie) == 6 and not any(tie[:3]) and all(map(math.isfinite, tie))
    simple = simple and len(scale) == 3 and all(scale[:2])
    content = directory.content(PLACEMENT, MAX_KNOWN_BYTES) if simple else None
    if content and (known := _known.get(content)):
        first = known.transform
        return replace(known, transform=Affine(first.a, first.b, tie[3], first.d, first.e, tie[4]))
    _check_metadata(directory)
    _check_units(directory)
    header = _read_header_with_gdal(data)
    # False if a pixel is a point: GDAL then moves the corner by half a pixel.
    if content and (header.transform.c, header.transform.f) == (tie[3], tie[4]):
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[content] = header
    return header


def read_samples(data: bytes, header: Header) -> NDArray[Any]:
    """Decode all samples of a GeoTIFF.

    This allocates as much memory as the header declares: the caller must check the sizes first.

    Args:
        data: The whole file.
        header: The file's header; all bands must have the same sample type.

    Returns:
        (bands, height, width) in the file's sample type. If the file interleaves its pixels, a view of
        (height, width, bands): the next copy separates the bands.

    Raises:
        GeoTiffError: If a block is missing or damaged.
    """
    if header.compression != "DEFLATE":
        return _read_samples_with_gdal(data)
    blocks = Directory(data).blocks()
    if _needs_gdal(header, blocks):
        together = len(header.dtypes) if header.interleaved else 1
        verify(
            data, blocks, header.block[0] * header.block[1] * together * np.dtype(header.dtypes[0]).itemsize
        )
        return _read_samples_with_gdal(data)
    bands = len(header.dtypes)
    planes, width = (1, bands) if header.interleaved else (bands, 1)
    samples = np.empty((planes, header.height, header.width, width), header.dtypes[0])
    inflate(data, blocks, header.block, samples)
    return samples.transpose(0, 3, 1, 2).reshape(bands, header.height, header.width)


def _check_metadata(directory: Directory) -> None:
    """Refuse damaged metadata before GDAL quotes it in an error.

    rasterio cannot decode such a message and prints to stderr.
    """
    text = directory.text(GDAL_METADATA)
    if text:
        try:
            expat.ParserCreate("utf-8").Parse(text, True)
        except expat.ExpatError as error:
            raise GeoTiffError(f"has damaged metadata, expected XML: {error}") from error


def _check_units(directory: Directory) -> None:
    """Refuse unknown units: GDAL would search for them and print to stderr."""
    for key, place, _, value in directory.geo_keys():
        units = UNITS.get(int(key))
        if units is not None and place == 0 and value not in units and value != USER_DEFINED_UNIT:
            raise GeoTiffError(
                f"names unit {value} in key {key} of its reference system, expected one of EPSG's, from"
                f" {units.start} to {units.stop - 1}"
            )


def _needs_gdal(header: Header, blocks: Blocks) -> bool:
    """Return whether only GDAL can decode a file: omitted blocks, samples of 12 bits, ..."""
    dtype = np.dtype(header.dtypes[0])
    predictors = (1, 2, 3) if dtype == np.float32 else (1, 2)
    omitted = not blocks.counts.all()
    return omitted or blocks.bits != 8 * dtype.itemsize or blocks.predictor not in predictors


def _read_header_with_gdal(data: bytes) -> Header:
    with _opened(data) as dataset:
        structure = dataset.tags(ns="IMAGE_STRUCTURE")
        return Header(
            width=dataset.width,
            height=dataset.height,
            dtypes=tuple(dataset.dtypes),
            descriptions=tuple(dataset.descriptions),
            compression=structure.get("COMPRESSION", "NONE").upper(),
            interleaved=structure.get("INTERLEAVE") == "PIXEL",
            block=max(dataset.block_shapes, default=(0, 0)),
            crs=dataset.crs.to_wkt() if dataset.crs else "",
            transform=dataset.transform,
            nodata=dataset.nodata,
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
            tags=dataset.tags(),
        )


def _read_samples_with_gdal(data: bytes) -> NDArray[Any]:
    try:
        with _opened(data) as dataset:
            samples: NDArray[Any] = dataset.read()
            return samples
    except GeoTiffError as error:
        # The sizes were checked before, so this is not the file's fault.
        if isinstance(_innermost(error), CPLE_OutOfMemoryError):
            raise MemoryError(str(error)) from error
        raise


@contextmanager
def _opened(data: bytes) -> Iterator[rasterio.DatasetReader]:
    """Open the bytes with GDAL's GTiff driver, and with no other driver.

    GDAL looks for no sibling files. `DummySession` keeps rasterio from starting an AWS session for every chip
    if the environment has AWS keys.
    """
    options = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
    with rasterio.Env(session=DummySession(), **options), MemoryFile(data, filename=NAME_IN_MEMORY) as file:
        try:
            with file.open(driver="GTiff") as dataset:
                yield dataset
        except (RasterioError, CPLE_BaseError, CRSError, UnicodeDecodeError) as error:
            message = " ".join(str(_innermost(error)).split())
            raise GeoTiffError(f"GDAL: {message.replace(file.name, NAME_IN_MEMORY)}") from error


def _innermost(error: BaseException) -> BaseException:
    """Return the original error: rasterio wraps it in "see previous exception for details"."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
