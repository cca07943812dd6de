"""Where a TIFF keeps its blocks: the few entries of its directory that decoding needs.

A TIFF points to a directory, whose entries (tag, type, count, values or a pointer to them) point to the
blocks, strips or tiles. GDAL reads the directory too, for `geotiff.Header`, but does not say where the
blocks are. Every pointer is held against the file's length before it is followed.
"""

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


class GeoTiffError(Exception):
    """These bytes cannot be read as a GeoTIFF; the message says where reading ended."""


class NotTiffError(GeoTiffError):
    """These bytes are no TIFF at all."""


@dataclass(frozen=True)
class Dialect:
    """One of the ways to write a TIFF.

    Attributes:
        order: Byte order, "<" or ">".
        start: Where the file says where its directory is.
        pointer: struct's letter for an offset, and for the number of values of an entry.
        number: struct's letter for the number of entries.
    """

    order: Literal["<", ">"]
    start: int
    pointer: str
    number: str


DIALECTS = {
    b"II*\0": Dialect("<", 4, "I", "H"),
    b"MM\0*": Dialect(">", 4, "I", "H"),
    b"II+\0": Dialect("<", 8, "Q", "Q"),  # BigTIFF
    b"MM\0+": Dialect(">", 8, "Q", "Q"),
}
"""By the first four bytes of the file."""

INTEGERS = {3: "u2", 4: "u4", 16: "u8"}
"""NumPy's names of the types that integers are stored in, by the TIFF specification's numbers."""

# Tags, by the same.
BITS_PER_SAMPLE, PREDICTOR = 258, 317
STRIP_OFFSETS, STRIP_BYTE_COUNTS = 273, 279
TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325
GEO_KEYS, GDAL_METADATA = 34735, 42112


@dataclass(frozen=True, eq=False)
class Blocks:
    """Where the blocks are, and how their bytes are to be taken.

    Attributes:
        order: The file's byte order, "<" or ">".
        tiled: Tiles, rather than strips as wide as the image.
        bits: Of a sample.
        predictor: 1: samples as they are; 2: differences between neighbours; 3: of their bytes, regrouped.
        offsets: Where each block begins; row by row from the top, and band after band if they are apart.
        counts: Bytes of each block; 0 where the file leaves it out.
    """

    order: Literal["<", ">"]
    tiled: bool
    bits: int
    predictor: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]


def find_directory(data: bytes) -> tuple[Dialect, int]:
    """How a TIFF is written, and where its directory begins.

    Raises:
        NotTiffError: If the bytes are no TIFF.
        GeoTiffError: If the file ends before its directory begins.
    """
    dialect = DIALECTS.get(data[:4])
    if dialect is None:
        raise NotTiffError(f"begins with {data[:12]!r}, expected a TIFF's II*, MM*, II+ or MM+")
    (directory,) = _unpack(data, dialect, dialect.pointer, dialect.start)
    if directory >= len(data):
        raise GeoTiffError(
            f"has {len(data):,} bytes, expected its directory at byte {directory:,}: truncated or damaged"
        )
    return dialect, directory


def find_blocks(data: bytes) -> Blocks:
    """Where the blocks of a TIFF's first image are.

    Raises:
        GeoTiffError: If its directory does not say so, or points beyond the end of the file.
    """
    dialect, directory = find_directory(data)
    entries = _entries(data, dialect, directory)

    def values(tag: int) -> NDArray[np.int64]:
        return _values(data, dialect, tag, *entries.get(tag, (0, 0, 0)))

    tiled = TILE_OFFSETS in entries
    blocks = Blocks(
        order=dialect.order,
        tiled=tiled,
        bits=int(values(BITS_PER_SAMPLE)[0]),
        predictor=int(values(PREDICTOR)[0]) if PREDICTOR in entries else 1,
        offsets=values(TILE_OFFSETS if tiled else STRIP_OFFSETS),
        counts=values(TILE_BYTE_COUNTS if tiled else STRIP_BYTE_COUNTS),
    )
    if len(blocks.offsets) != len(blocks.counts):
        raise GeoTiffError(
            f"has {len(blocks.offsets):,} blocks, expected as many as lengths: {len(blocks.counts):,}"
        )
    # Each alone first: a sum of two numbers near 2^63 would be negative.
    for positions in (blocks.offsets, blocks.counts, blocks.offsets + blocks.counts):
        if positions.min() < 0 or positions.max() > len(data):
            raise GeoTiffError(
                f"has {len(data):,} bytes, expected all blocks before their end: truncated or damaged"
            )
    return blocks


def find_text(data: bytes, tag: int) -> bytes:
    """A tag's text up to its first NUL, where its readers end; empty where the file has none.

    Raises:
        GeoTiffError: If the directory or the text does not lie in the file.
    """
    dialect, directory = find_directory(data)
    _, count, position = _entries(data, dialect, directory).get(tag, (0, 0, 0))
    if count > struct.calcsize(dialect.order + dialect.pointer):
        (position,) = _unpack(data, dialect, dialect.pointer, position)
    if position + count > len(data):
        raise GeoTiffError(f"has {len(data):,} bytes, expected the text of tag {tag} in them")
    return data[position : position + count].partition(b"\0")[0]


def find_geo_keys(data: bytes) -> NDArray[np.int64]:
    """What a GeoTIFF says of its reference system: (keys, 4) of key, tag of the value or 0, count, value.

    Raises:
        GeoTiffError: If the directory does not lie in the file, or says so in other words than integers.
    """
    dialect, directory = find_directory(data)
    entry = _entries(data, dialect, directory).get(GEO_KEYS)
    values = np.empty(0, np.int64) if entry is None else _values(data, dialect, GEO_KEYS, *entry)
    return values[4 : len(values) // 4 * 4].reshape(-1, 4)


def _unpack(data: bytes, dialect: Dialect, letters: str, position: int) -> tuple[int, ...]:
    layout = struct.Struct(dialect.order + letters)
    if position + layout.size > len(data):
        end = position + layout.size
        raise GeoTiffError(
            f"has {len(data):,} bytes, expected its directory up to byte {end:,}: truncated or damaged"
        )
    return layout.unpack_from(data, position)


def _entries(data: bytes, dialect: Dialect, directory: int) -> dict[int, tuple[int, int, int]]:
    """Of each tag: type and number of its values, and where the entry has them, or a pointer to them."""
    (number,) = _unpack(data, dialect, dialect.number, directory)
    position = directory + struct.calcsize(dialect.order + dialect.number)
    size = struct.calcsize(dialect.order + dialect.pointer)
    entries: dict[int, tuple[int, int, int]] = {}
    for _ in range(number):  # a file ends sooner than the largest number
        tag, kind, count = _unpack(data, dialect, f"HH{dialect.pointer}", position)
        entries.setdefault(tag, (kind, count, position + 4 + size))  # libtiff, too, takes the first
        position += 4 + 2 * size
    return entries


def _values(
    data: bytes, dialect: Dialect, tag: int, kind: int, count: int, position: int
) -> NDArray[np.int64]:
    if kind not in INTEGERS or count < 1:
        raise GeoTiffError(f"has {count:,} values of type {kind} in tag {tag}, expected integers")
    dtype = np.dtype(dialect.order + INTEGERS[kind])
    if count * dtype.itemsize > struct.calcsize(dialect.order + dialect.pointer):
        (position,) = _unpack(data, dialect, dialect.pointer, position)
    if position + count * dtype.itemsize > len(data):
        raise GeoTiffError(
            f"has {len(data):,} bytes, expected {count:,} values of tag {tag} in them: truncated or damaged"
        )
    return np.frombuffer(data, dtype, count, position).astype(np.int64)
