"""Reads the header and the samples of one GeoTIFF in memory. No other file is opened.

GDAL reads the header (georeferencing), once per kind of file. We inflate the samples of a deflated file
ourselves: GDAL verifies no checksum, splits every block into bands and locks its block cache for each
(`deflate` does not). GDAL reads the samples of all other files.

Functions raise GeoTiffError if the file is damaged. `rejection` judges what a chip must look like.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError, CPLE_OutOfMemoryError  # not public, but rasterio raises them
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.session import DummySession

from clay_assets.chips.deflate import inflate, verify
from clay_assets.chips.directory import PIXEL_SCALE, TIE_POINT, Directory, GeoTiffError

# File name in messages, the same for all files, so that equal problems have equal messages.
NAME_IN_MEMORY = "chip.tif"

# Headers by the content of the directory. A race of two threads only costs one more read.
_known: dict[bytes, "Header"] = {}
MAX_KNOWN = 64

# A file without georeferencing is rejected with a reason. Ignoring the warning around a single call would
# change the filters of every thread.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


@dataclass(frozen=True)
class Header:
    """A GeoTIFF's metadata, known before any sample is decoded."""

    width: int
    height: int
    dtypes: tuple[str, ...]  # NumPy's name of the sample type of each band
    descriptions: tuple[str | None, ...]  # name of each band, None if the file has none
    compression: str  # GDAL's name of the codec in capitals, "NONE" without one
    interleaved: bool  # whether the samples of a pixel are stored together, rather than band by band
    block: tuple[int, int]  # rows and columns of a strip or tile, the unit of compression
    crs: str  # coordinate reference system as WKT; "" if there is none
    transform: Affine  # from (column, row) to the CRS's coordinates; the identity if the file has none
    nodata: float | None  # value that stands for no data in every band (a TIFF has one at most)
    scales: tuple[float, ...]  # by band: physical values are samples x scale + offset; 1 if the file has none
    offsets: tuple[float, ...]  # by band; 0 if the file has none
    tags: Mapping[str, str]  # metadata of the file as a whole


def read_header(data: bytes) -> Header:
    """Read a GeoTIFF's metadata; no sample is decoded.

    The headers of a tile's chips differ only in their tie point and their blocks, so GDAL opens only the
    first chip: opening takes 0.6 ms, most of it with the GIL held, and comparing two directories a tenth of
    that. Raises NotTiffError if the bytes are not a TIFF.
    """
    directory = Directory(data)
    tie, scale = directory.doubles(TIE_POINT), directory.doubles(PIXEL_SCALE)
    # (column, row, 0, x, y, 0). GDAL handles all other tie points: several, one inside the image, infinity,
    # one without a pixel size, which gives no place.
    simple = len(tie) == 6 and not any(tie[:3]) and all(map(math.isfinite, tie))
    simple = simple and len(scale) == 3 and all(scale[:2])
    content = directory.content() if simple else None
    if content and (known := _known.get(content)):
        first = known.transform
        return replace(known, transform=Affine(first.a, first.b, tie[3], first.d, first.e, tie[4]))
    directory.refuse_what_gdal_would_print()
    header = _read_header_with_gdal(data)
    # False if a pixel is a point: GDAL then moves the corner by half a pixel.
    if content and (header.transform.c, header.transform.f) == (tie[3], tie[4]):
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[content] = header
    return header


def read_samples(data: bytes, header: Header) -> NDArray[Any]:
    """Decode all samples of a GeoTIFF whose bands have the same sample type: (bands, height, width).

    This allocates as much memory as the header declares: the caller must check the sizes first. If the file
    interleaves its pixels, returns a view of (height, width, bands): the next copy separates the bands.
    """
    samples: NDArray[Any]
    if header.compression == "DEFLATE":
        blocks = Directory(data).blocks()
        bands, dtype = len(header.dtypes), np.dtype(header.dtypes[0])
        planes, width = (1, bands) if header.interleaved else (bands, 1)
        predictors = (1, 2, 3) if dtype == np.float32 else (1, 2)
        if blocks.counts.all() and blocks.bits == 8 * dtype.itemsize and blocks.predictor in predictors:
            samples = np.empty((planes, header.height, header.width, width), dtype)
            inflate(data, blocks, header.block, samples)
            return samples.transpose(0, 3, 1, 2).reshape(bands, header.height, header.width)
        # Only GDAL can decode it: omitted blocks, samples of 12 bits, ...
        verify(data, blocks, longest=math.prod(header.block) * width * dtype.itemsize)
    try:
        with _opened(data) as dataset:
            samples = dataset.read()
            return samples
    except GeoTiffError as error:
        # The sizes were checked before, so this is not the file's fault.
        if isinstance(error.__cause__, CPLE_OutOfMemoryError):
            raise MemoryError(str(error)) from error
        raise


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
            original: BaseException = error
            while original.__cause__ is not None:  # rasterio's own says "see previous exception for details"
                original = original.__cause__
            message = " ".join(str(original).split())
            raise GeoTiffError(f"GDAL: {message.replace(file.name, NAME_IN_MEMORY)}") from original
