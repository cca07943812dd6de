"""Generated chips: valid ones in every layout, and invalid ones of every kind.

All are of tile 27WXN, 2020-06-15, with 10 m pixels in EPSG:32627. Their values differ by band and place and
compress well, so that writing and reading a chip takes milliseconds.
"""

import functools
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from clay_assets.chips import Reason
from clay_model.spec import BANDS, CHIP_SIZE

DATE = "2020-06-15"

LAYOUTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "bucket layout": {"interleave": "pixel"},  # strips of one row, since a row fills 8 KB
        "tiles with a predictor": {
            "interleave": "pixel", "predictor": 3, "tiled": True, "blockxsize": 256, "blockysize": 256
        },
        "overhanging tiles": {"interleave": "pixel", "tiled": True, "blockxsize": 384, "blockysize": 208},
        "one strip": {"interleave": "pixel", "blockysize": 512},
        "strips that do not divide the rows": {"interleave": "pixel", "blockysize": 100},
        "bands apart in strips": {"interleave": "band"},
        "bands apart in one tile each": {
            "interleave": "band", "tiled": True, "blockxsize": 512, "blockysize": 512
        },
        "uncompressed": {"interleave": "pixel", "compress": "none"},
        "uncompressed bands": {"interleave": "band", "compress": "none"},
        "LZW": {"interleave": "pixel", "compress": "lzw"},
        "ZSTD with predictor": {"interleave": "band", "compress": "zstd", "predictor": 3},
        "PackBits": {"interleave": "pixel", "compress": "packbits"},
        "BigTIFF": {"interleave": "pixel", "bigtiff": "yes"},
        "big-endian": {"interleave": "pixel", "endianness": "big"},
        "sparse": {"interleave": "pixel", "sparse_ok": True},
    }
)  # fmt: skip
"""GDAL's creation options of each layout that a chip may have; deflate unless a codec is named."""


def chip_name(number: int = 1, *, tile: str = "27WXN", date: str = DATE) -> str:
    """A chip's file name."""
    return f"claytile_{tile}_{date.replace('-', '')}_v02_{number:04}.tif"


def chip_pixels(dtype: str = "float32", size: int = CHIP_SIZE, bands: int = len(BANDS)) -> NDArray[Any]:
    """(bands, size, size), 0 to 120; bands, rows and columns differ."""
    rows, columns = np.mgrid[:size, :size]
    pattern = rows // 16 + (columns // 32) * 2
    return np.stack([pattern + 2 * band for band in range(bands)]).clip(0, 120).astype(dtype)


def chip_bytes(
    pixels: NDArray[Any] | None = None,
    *,
    layout: str = "bucket layout",
    crs: str | None = "EPSG:32627",
    origin: tuple[float, float] | None = (600_000, 7_700_040),
    pixel: float = 10,
    date: str | None = DATE,
    time: str | None = None,
    bands: tuple[str | None, ...] = (),
    scales: Sequence[float] = (),
    offsets: Sequence[float] = (),
    meaning: str = "Area",
    **options: float | str,
) -> bytes:
    """A chip, written by GDAL.

    Args:
        pixels: (bands, rows, columns); `chip_pixels()` if None.
        layout: One of `LAYOUTS`.
        crs: Coordinate reference system; None: the file has none.
        origin: Upper left corner; None: the file has no geotransform.
        pixel: Pixel size in the unit of the CRS.
        date: Tag `date`; None: the file has none.
        time: Tag `datetime`; None: the file has none.
        bands: Names of the bands; empty: the file names none.
        scales: Scale of each band; empty: the file has none.
        offsets: Offset of each band; empty: the file has none.
        meaning: "Area" or "Point": the tie point is a pixel's corner or its centre.
        **options: Further creation options, which override the layout's.
    """
    samples = chip_pixels() if pixels is None else pixels
    profile: dict[str, Any] = {"driver": "GTiff", "compress": "deflate", **LAYOUTS[layout], **options}
    if crs is not None:
        profile["crs"] = crs
    if origin is not None:
        profile["transform"] = Affine(pixel, 0, origin[0], 0, -pixel, origin[1])
    count, height, width = samples.shape
    with MemoryFile() as file:
        with file.open(
            count=count, height=height, width=width, dtype=samples.dtype.name, **profile
        ) as dataset:
            if meaning != "Area":
                dataset.update_tags(AREA_OR_POINT=meaning)
            dataset.write(samples)
            # After the pixels, like the bucket's files: the directory moves to the end.
            if date is not None:
                dataset.update_tags(date=date)
            if time is not None:
                dataset.update_tags(datetime=time)
            if scales:
                dataset.scales = scales
            if offsets:
                dataset.offsets = offsets
            for index, name in enumerate(bands, start=1):
                if name is not None:
                    dataset.set_band_description(index, name)
        return bytes(file.read())


@functools.cache
def good_chip() -> bytes:
    """A valid chip in the bucket's layout."""
    return chip_bytes()


def read_with_rasterio(data: bytes) -> NDArray[Any]:
    """A GeoTIFF's samples, read by rasterio: the oracle."""
    with MemoryFile(data) as file, file.open(driver="GTiff") as dataset:
        samples: NDArray[Any] = dataset.read()
        return samples


@dataclass(frozen=True)
class BadChip:
    """An invalid chip.

    Attributes:
        make: Returns its bytes.
        reason: Expected reason of the refusal.
        phrase: Regular expression that the message must match.
    """

    make: Callable[[], bytes]
    reason: Reason
    phrase: str


def _with_a_pixel(value: float) -> bytes:
    pixels = chip_pixels()
    pixels[1, 3, 4] = pixels[10, 0, :2] = value
    return chip_bytes(pixels)


def filled_pixels(value: float, rows: int = CHIP_SIZE * 9 // 10, dtype: str = "float32") -> NDArray[Any]:
    """(13, 512, 512): land, with `value` in the first rows of all optical bands."""
    pixels = chip_pixels(dtype) + np.array(1, dtype)
    pixels[:10, :rows] = value
    return pixels


def _truncated() -> bytes:
    return good_chip()[: len(good_chip()) // 2]


def _with_a_damaged_strip() -> bytes:
    data = bytearray(good_chip())
    offset = first_values(good_chip(), STRIP_OFFSETS)[300]
    data[offset + 10 : offset + 20] = bytes(10)
    return bytes(data)


def _with_band(band: str, value: float) -> NDArray[Any]:
    pixels = chip_pixels()
    pixels[BANDS.index(band)] = value
    return pixels


LOWEST_FLOAT = float(np.finfo(np.float32).min)
"""-3.4028235e38, the usual no-data value of float32 files."""

VRT = b"""<VRTDataset rasterXSize="512" rasterYSize="512"><VRTRasterBand dataType="Float32" band="1">
<SimpleSource><SourceFilename>/etc/hostname</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""

SWAPPED = (*BANDS[:10], "vv", "vh", "dem")

BAD_CHIPS: Mapping[str, BadChip] = MappingProxyType(
    {
        "empty": BadChip(lambda: b"", "format", "begins with b'', expected a TIFF"),
        "text": BadChip(lambda: b"Not Found\n", "format", r"begins with b'Not Found\\n'"),
        "VRT": BadChip(lambda: VRT, "format", "begins with b'<VRTDataset '"),
        "PNG": BadChip(
            lambda: chip_bytes(chip_pixels("uint8")[:1], driver="PNG", crs=None, origin=None),
            "format", r"begins with b'\\x89PNG",
        ),
        "truncated": BadChip(_truncated, "corrupt", "has [0-9,]+ bytes, expected its directory at byte"),
        "damaged strip": BadChip(
            _with_a_damaged_strip, "corrupt", "damage in block 301 of 512, expected 26,624 bytes and"
        ),
        "256 x 256": BadChip(
            lambda: chip_bytes(chip_pixels(size=256)), "size", "256 x 256 pixels, expected 512 x 512"
        ),
        "12 bands": BadChip(lambda: chip_bytes(chip_pixels(bands=12)), "bands", "12 bands, expected 13"),
        "a band missing by name": BadChip(
            lambda: chip_bytes(bands=(*BANDS[:3], "B01", *BANDS[4:])), "bands", "no band named B05 .*B01"
        ),
        "a band twice": BadChip(
            lambda: chip_bytes(bands=(*BANDS[:12], "vh")), "bands", "no band named dem among .*vh, vv, vh"
        ),
        "only some bands named": BadChip(
            lambda: chip_bytes(bands=(*BANDS[:12], None)), "bands", "no band named dem among"
        ),
        "float64": BadChip(
            lambda: chip_bytes(chip_pixels("float64")), "type", "type float64, expected float32 or one"
        ),
        "reflectance by scale and offset": BadChip(
            lambda: chip_bytes(scales=[1e-4] * 10 + [1] * 3, offsets=[-0.1] * 10 + [0] * 3),
            "scale", "has scale 0.0001, offset -0.1, expected 1, 0",
        ),
        "only an offset": BadChip(
            lambda: chip_bytes(offsets=[0] * 12 + [100]), "scale", "has scale 1, offset 100, expected 1, 0"
        ),
        "lossy codec": BadChip(
            lambda: chip_bytes(compress="lerc_deflate", max_z_error=1), "layout", "by 'LERC_DEFLATE'"
        ),
        "no date": BadChip(lambda: chip_bytes(date=None), "date", "no tag `date`, expected 2020-06-15"),
        "another date": BadChip(
            lambda: chip_bytes(date="2020-06-16"), "date", "has '2020-06-16' as its tag `date`, expected 2020"
        ),
        "no day": BadChip(lambda: chip_bytes(date="last June"), "date", "has 'last June' as its tag"),
        "no CRS": BadChip(lambda: chip_bytes(crs=None), "crs", "no coordinate reference system"),
        "no geotransform": BadChip(lambda: chip_bytes(origin=None), "crs", "no geotransform"),
        "off the Earth": BadChip(
            lambda: chip_bytes(origin=(1e12, 1e12)), "crs", r"bounds 1e\+12, .*expected ones that .* on Earth"
        ),
        "no extent": BadChip(
            lambda: chip_bytes(pixel=1e-14), "crs", "bounds .*expected ones that span an area"
        ),
        "a local CRS": BadChip(
            lambda: chip_bytes(crs='LOCAL_CS["site",UNIT["metre",1]]'), "crs", "coordinate reference system"
        ),
        "NaN": BadChip(lambda: _with_a_pixel(np.nan), "nonfinite", "NaN or infinite, .*: 1 in B03, 2 in vh"),
        "infinity": BadChip(lambda: _with_a_pixel(np.inf), "nonfinite", "1 in B03, 2 in vh"),
        "-infinity": BadChip(lambda: _with_a_pixel(-np.inf), "nonfinite", "1 in B03, 2 in vh"),
        "lowest float32": BadChip(
            lambda: _with_a_pixel(LOWEST_FLOAT), "range",
            r"B03 from -3.40282e\+38 to 63, expected -2000 to 100000, vh .*; 1 of 262,144 pixels hold a",
        ),
        "lowest float32, declared": BadChip(
            lambda: chip_bytes(filled_pixels(LOWEST_FLOAT, rows=5), nodata=LOWEST_FLOAT), "range",
            "B02 from .*; 2,560 of 262,144 pixels hold a no-data value",
        ),
        "highest float32": BadChip(
            lambda: _with_a_pixel(-LOWEST_FLOAT), "range", r"to 3.40282e\+38, expected"
        ),
        "sum beyond float32": BadChip(
            lambda: chip_bytes(np.full((13, 512, 512), 3e38, np.float32)), "range", r"B02 from 3e\+38 to 3e"
        ),
        "SAR in decibels": BadChip(
            lambda: chip_bytes(_with_band("vv", -12.5)), "range", "vv from -12.5 to -12.5, expected -1 to"
        ),
        "a void in the dem": BadChip(
            lambda: chip_bytes(_with_band("dem", -32768), nodata=-32768), "range", "dem from -32768 to"
        ),
        "mostly 0": BadChip(lambda: chip_bytes(filled_pixels(0)), "nodata", "89.8% of .* at most 30.0%"),
        "mostly 0, declared": BadChip(lambda: chip_bytes(filled_pixels(0), nodata=0), "nodata", "has 89.8%"),
        "mostly -9999": BadChip(lambda: chip_bytes(filled_pixels(-9999)), "nodata", "has 89.8% of pixels"),
        "mostly -32768": BadChip(
            lambda: chip_bytes(filled_pixels(-32768, dtype="int16")), "nodata", "has 89.8% of pixels"
        ),
        "mostly the lowest float32": BadChip(
            lambda: chip_bytes(filled_pixels(LOWEST_FLOAT), nodata=LOWEST_FLOAT), "nodata", "has 89.8%"
        ),
        "mostly NaN, declared": BadChip(
            lambda: chip_bytes(filled_pixels(np.nan), nodata=np.nan), "nodata", "has 89.8% of pixels"
        ),
        "mostly saturated, declared": BadChip(
            lambda: chip_bytes(filled_pixels(65535, dtype="uint16"), nodata=65535), "nodata", "has 89.8%"
        ),
    }
)  # fmt: skip
"""Every kind of file that must be refused, by name."""

# TIFF tags.
IMAGE_WIDTH, IMAGE_LENGTH, SAMPLES_PER_PIXEL = 256, 257, 277
STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_BYTE_COUNTS = 273, 278, 279
TILE_WIDTH, TILE_LENGTH = 322, 323


def directory_offset(data: bytes) -> int:
    """Offset of the directory of a little-endian classic TIFF."""
    return int(struct.unpack_from("<I", data, 4)[0])


def entry_offset(data: bytes, tag: int) -> int:
    """Offset of a tag's 12-byte entry in the directory: tag, type, count, value or offset."""
    start = directory_offset(data) + 2
    entries = range(start, start + 12 * struct.unpack_from("<H", data, start - 2)[0], 12)
    return next(entry for entry in entries if struct.unpack_from("<H", data, entry)[0] == tag)


def first_values(data: bytes, tag: int) -> tuple[int, ...]:
    """All values of a tag of 32-bit numbers that the directory stores by offset."""
    count, offset = struct.unpack_from("<II", data, entry_offset(data, tag) + 4)
    return struct.unpack_from(f"<{count}I", data, offset)


def with_tag(data: bytes, tag: int, value: int, *, count: int | None = None) -> bytes:
    """The file with another value (or offset of values) and count of a tag."""
    patched, entry = bytearray(data), entry_offset(data, tag)
    patched[entry + 2 : entry + 4] = struct.pack("<H", 4)  # a 32-bit number
    struct.pack_into("<I", patched, entry + 8, value)
    if count is not None:
        struct.pack_into("<I", patched, entry + 4, count)
    return bytes(patched)


def with_cyclic_directories(data: bytes) -> bytes:
    """The file with a directory that is its own successor."""
    patched, start = bytearray(data), directory_offset(data)
    entries = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", patched, start + 2 + 12 * entries, start)
    return bytes(patched)


def with_bomb(data: bytes, size: int) -> bytes:
    """The file with a first strip that inflates to `size` bytes."""
    deflater = zlib.compressobj(1)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(size >> 20)) + deflater.flush()
    patched = bytearray(data + bomb)
    for tag, value in ((STRIP_OFFSETS, len(data)), (STRIP_BYTE_COUNTS, len(bomb))):
        struct.pack_into("<I", patched, struct.unpack_from("<I", data, entry_offset(data, tag) + 8)[0], value)
    return bytes(patched)
