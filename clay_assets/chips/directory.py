"""A TIFF's first directory: the location of its blocks, and the tags that define how to read them.

A TIFF points to a directory, whose entries (tag, type, count, values or a pointer to them) point to the
blocks: strips or tiles. GDAL reads the directory too but does not say where the blocks are. Every pointer is
checked against the file's length before it is followed.
"""

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


class GeoTiffError(Exception):
    """The bytes cannot be read as a GeoTIFF; the message says why."""


class NotTiffError(GeoTiffError):
    """The bytes are not a TIFF."""


@dataclass(frozen=True)
class Dialect:
    """One of the four binary layouts of a TIFF.

    Attributes:
        order: Byte order, "<" or ">".
        start: Position of the pointer to the first directory.
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

# Types and tags by number, from the TIFF 6.0, BigTIFF and GeoTIFF specifications.
TYPE_BYTES = dict(
    zip([*range(1, 14), 16, 17, 18], [1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 8, 8, 8], strict=True)
)
INTEGERS = {3: "u2", 4: "u4", 16: "u8"}
DOUBLE = 12
BITS_PER_SAMPLE, PREDICTOR = 258, 317
STRIP_OFFSETS, STRIP_BYTE_COUNTS = 273, 279
TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325
PIXEL_SCALE, TIE_POINT, GEO_KEYS, GDAL_METADATA = 33550, 33922, 34735, 42112


@dataclass(frozen=True, eq=False)
class Blocks:
    """Location and encoding of an image's blocks.

    Attributes:
        order: The file's byte order, "<" or ">".
        tiled: Tiles, rather than strips as wide as the image.
        bits: Bits per sample.
        predictor: 1: samples unchanged; 2: differences between neighbours; 3: of their bytes, regrouped.
        offsets: Position of each block; row by row from the top, and band after band if they are separate.
        counts: Bytes of each block; 0 for a block that the file omits.
    """

    order: Literal["<", ">"]
    tiled: bool
    bits: int
    predictor: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]


class Directory:
    """The first directory of a TIFF.

    Attributes:
        order: The file's byte order, "<" or ">".
        entries: For each tag, type and number of its values, and their position.
    """

    def __init__(self, data: bytes) -> None:
        """Read the entries.

        Raises:
            NotTiffError: If the bytes are not a TIFF.
            GeoTiffError: If the file ends before its directory does.
        """
        dialect = DIALECTS.get(data[:4])
        if dialect is None:
            raise NotTiffError(f"begins with {data[:12]!r}, expected a TIFF's II*, MM*, II+ or MM+")
        self._data = data
        self.order = dialect.order
        self._inline = struct.calcsize(dialect.order + dialect.pointer)
        start = self._unpack(dialect.pointer, dialect.start)
        if start >= len(data):
            raise GeoTiffError(
                f"has {len(data):,} bytes, expected its directory at byte {start:,}: truncated or damaged"
            )
        number = self._unpack(dialect.number, start)
        start += struct.calcsize(dialect.order + dialect.number)
        entry = struct.Struct(f"{dialect.order}HH{dialect.pointer}{self._inline}x")
        end = start + number * entry.size
        self._check_end("its directory", end)
        self.entries: dict[int, tuple[int, int, int]] = {}
        positions = range(start + entry.size - self._inline, end, entry.size)
        values = entry.iter_unpack(memoryview(data)[start:end])
        for (tag, kind, count), position in zip(values, positions, strict=False):
            if tag in self.entries:
                continue  # libtiff also takes the first
            if count * TYPE_BYTES.get(kind, 1) > self._inline:
                position = self._unpack(dialect.pointer, position)
            self.entries[tag] = (kind, count, position)

    def __contains__(self, tag: int) -> bool:
        return tag in self.entries

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a tag's values; empty if the tag is missing.

        Raises:
            GeoTiffError: If they are not in the file.
        """
        kind, count, position = self.entries.get(tag, (1, 0, 0))
        end = position + count * TYPE_BYTES.get(kind, 1)
        self._check_end(f"the values of tag {tag}", end)
        return self._data[position:end]

    def integers(self, tag: int) -> NDArray[np.int64]:
        """Return the values of an integer tag.

        Raises:
            GeoTiffError: If there are none, they are not integers, or they are not in the file.
        """
        kind, count, _ = self.entries.get(tag, (0, 0, 0))
        if kind not in INTEGERS or count < 1:
            raise GeoTiffError(f"has {count:,} values of type {kind} in tag {tag}, expected integers")
        return np.frombuffer(self.raw(tag), self.order + INTEGERS[kind]).astype(np.int64)

    def doubles(self, tag: int) -> tuple[float, ...]:
        """Return the values of a tag; empty if the tag is missing or of another type."""
        kind, count, _ = self.entries.get(tag, (0, 0, 0))
        return struct.unpack(f"{self.order}{count}d", self.raw(tag)) if kind == DOUBLE else ()

    def text(self, tag: int) -> bytes:
        """Return a tag's text up to its first NUL, as other readers do; empty if the tag is missing."""
        return self.raw(tag).partition(b"\0")[0]

    def geo_keys(self) -> NDArray[np.int64]:
        """Return the keys of the reference system, (keys, 4): key, tag of the value or 0, count, value."""
        values = self.integers(GEO_KEYS) if GEO_KEYS in self else np.empty(0, np.int64)
        return values[4 : len(values) // 4 * 4].reshape(-1, 4)

    def blocks(self) -> Blocks:
        """Return the location and encoding of the image's blocks.

        Raises:
            GeoTiffError: If the directory does not describe them, or places one beyond the end of the file.
        """
        tiled = TILE_OFFSETS in self
        blocks = Blocks(
            order=self.order,
            tiled=tiled,
            bits=int(self.integers(BITS_PER_SAMPLE)[0]),
            predictor=int(self.integers(PREDICTOR)[0]) if PREDICTOR in self else 1,
            offsets=self.integers(TILE_OFFSETS if tiled else STRIP_OFFSETS),
            counts=self.integers(TILE_BYTE_COUNTS if tiled else STRIP_BYTE_COUNTS),
        )
        if len(blocks.offsets) != len(blocks.counts):
            raise GeoTiffError(
                f"has {len(blocks.offsets):,} blocks, expected as many as lengths: {len(blocks.counts):,}"
            )
        # Check each by itself first: the sum of two numbers near 2^63 overflows.
        for positions in (blocks.offsets, blocks.counts, blocks.offsets + blocks.counts):
            if positions.min() < 0 or positions.max() > len(self._data):
                raise GeoTiffError(
                    f"has {len(self._data):,} bytes, expected all blocks before their end: truncated"
                    " or damaged"
                )
        return blocks

    def content(self, without: Collection[int], max_bytes: int) -> bytes | None:
        """Return the directory as bytes, equal for files that differ only in the values of some tags.

        Args:
            without: Tags whose values are left out; their types and counts are included.
            max_bytes: Maximum number of bytes of the other values.

        Returns:
            None if the other values are larger, or of a type that TIFF 6.0 and BigTIFF do not define.
        """
        kept = {tag: (kind, count) for tag, (kind, count, _) in self.entries.items() if tag not in without}
        if sum(TYPE_BYTES.get(kind, max_bytes + 1) * count for kind, count in kept.values()) > max_bytes:
            return None
        shape = repr([(tag, kind, count) for tag, (kind, count, _) in self.entries.items()]).encode()
        return b"".join([self._data[:4], shape, *map(self.raw, kept)])

    def _unpack(self, letter: str, position: int) -> int:
        layout = struct.Struct(self.order + letter)
        self._check_end("its directory", position + layout.size)
        (value,) = layout.unpack_from(self._data, position)
        return int(value)

    def _check_end(self, what: str, end: int) -> None:
        if end > len(self._data):
            raise GeoTiffError(
                f"has {len(self._data):,} bytes, expected {what} up to byte {end:,}: truncated or damaged"
            )
