"""A TIFF's first directory: the location of its blocks, and the tags that define how to read them.

A TIFF points to a directory, whose entries (tag, type, count, values or a pointer to them) point to the
blocks: strips or tiles. GDAL reads the directory too but does not say where the blocks are. Every pointer is
checked against the file's length before it is followed.
"""

import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray


class GeoTiffError(Exception):
    """The bytes cannot be read as a GeoTIFF; the message says why."""


class NotTiffError(GeoTiffError):
    """The bytes are not a TIFF."""


class Dialect(NamedTuple):
    """One of the four binary layouts of a TIFF."""

    order: Literal["<", ">"]  # byte order
    start: int  # position of the pointer to the first directory
    pointer: str  # struct's letter for an offset, and for the number of values of an entry
    number: str  # struct's letter for the number of entries


# By the first four bytes of the file.
DIALECTS = {
    b"II*\0": Dialect("<", 4, "I", "H"),
    b"MM\0*": Dialect(">", 4, "I", "H"),
    b"II+\0": Dialect("<", 8, "Q", "Q"),  # BigTIFF
    b"MM\0+": Dialect(">", 8, "Q", "Q"),
}

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

# By the GeoTIFF specification: https://docs.ogc.org/is/19-008r4/19-008r4.html
EPSG_LENGTHS, EPSG_ANGLES, USER_DEFINED_UNIT = range(9000, 9100), range(9100, 9200), 32_767
# Keys of a reference system that name a unit, and the accepted codes of each.
UNITS = {2052: EPSG_LENGTHS, 2054: EPSG_ANGLES, 3076: EPSG_LENGTHS, 4099: EPSG_LENGTHS}

# Tags whose values differ from chip to chip, and the maximum bytes of the other values.
PLACEMENT = frozenset({TIE_POINT, STRIP_OFFSETS, STRIP_BYTE_COUNTS, TILE_OFFSETS, TILE_BYTE_COUNTS})
MAX_CONTENT = 1 << 16


@dataclass(frozen=True, eq=False)
class Blocks:
    """Location and encoding of an image's blocks, row by row from the top, band after band if separate."""

    order: Literal["<", ">"]  # the file's byte order
    tiled: bool  # tiles, rather than strips as wide as the image
    bits: int  # per sample
    predictor: int  # 1: samples unchanged; 2: differences between neighbours; 3: of their bytes, regrouped
    offsets: NDArray[np.int64]  # position of each block
    counts: NDArray[np.int64]  # bytes of each block; 0 for one that the file omits


class Directory:
    """The first directory of a TIFF. Methods raise GeoTiffError if values are not in the file."""

    def __init__(self, data: bytes) -> None:
        """Read the entries; raise `NotTiffError` if the bytes are not a TIFF."""
        dialect = DIALECTS.get(data[:4])
        if dialect is None:
            raise NotTiffError(f"begins with {data[:12]!r}, expected a TIFF's II*, MM*, II+ or MM+")
        self._data = data
        self.order = dialect.order
        self._inline = struct.calcsize(dialect.order + dialect.pointer)
        start = self._unpack(dialect.pointer, dialect.start)
        if start >= len(data):
            raise self._truncated(f"its directory at byte {start:,}")
        number = self._unpack(dialect.number, start)
        start += struct.calcsize(dialect.order + dialect.number)
        entry = struct.Struct(f"{dialect.order}HH{dialect.pointer}{self._inline}x")
        end = start + number * entry.size
        self._check_end("its directory", end)
        # For each tag, type and number of its values, and their position.
        self.entries: dict[int, tuple[int, int, int]] = {}
        positions = range(start + entry.size - self._inline, end, entry.size)
        values = entry.iter_unpack(memoryview(data)[start:end])
        for (tag, kind, count), position in zip(values, positions, strict=False):
            if tag in self.entries:
                continue  # libtiff also takes the first
            if count * TYPE_BYTES.get(kind, 1) > self._inline:
                position = self._unpack(dialect.pointer, position)
            self.entries[tag] = (kind, count, position)

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a tag's values; empty if the tag is missing."""
        kind, count, position = self.entries.get(tag, (1, 0, 0))
        end = position + count * TYPE_BYTES.get(kind, 1)
        self._check_end(f"the values of tag {tag}", end)
        return self._data[position:end]

    def integers(self, tag: int) -> NDArray[np.int64]:
        """Return the values of an integer tag; raise `GeoTiffError` if there are none or of another type."""
        kind, count, _ = self.entries.get(tag, (0, 0, 0))
        if kind not in INTEGERS or count < 1:
            raise GeoTiffError(f"has {count:,} values of type {kind} in tag {tag}, expected integers")
        return np.frombuffer(self.raw(tag), self.order + INTEGERS[kind]).astype(np.int64)

    def doubles(self, tag: int) -> tuple[float, ...]:
        """Return the values of a tag; empty if the tag is missing or of another type."""
        kind, count, _ = self.entries.get(tag, (0, 0, 0))
        return struct.unpack(f"{self.order}{count}d", self.raw(tag)) if kind == DOUBLE else ()

    def refuse_what_gdal_would_print(self) -> None:
        """Refuse damaged metadata and unknown units, about which rasterio and GDAL print to stderr.

        GDAL quotes damaged metadata in an error that rasterio cannot decode, and searches for unknown units.
        """
        metadata = self.raw(GDAL_METADATA).partition(b"\0")[0]  # up to the first NUL, as other readers
        if metadata:
            try:
                expat.ParserCreate("utf-8").Parse(metadata, True)
            except expat.ExpatError as error:
                raise GeoTiffError(f"has damaged metadata, expected XML: {error}") from error
        keys = self.integers(GEO_KEYS) if GEO_KEYS in self.entries else np.empty(0, np.int64)
        # After a header of the same size: key, tag of the value or 0, count, value.
        for key, place, _, value in keys[4 : len(keys) // 4 * 4].reshape(-1, 4):
            units = UNITS.get(int(key))
            if units is not None and place == 0 and value not in units and value != USER_DEFINED_UNIT:
                raise GeoTiffError(
                    f"names unit {value} in key {key} of its reference system, expected one of EPSG's, from"
                    f" {units.start} to {units.stop - 1}"
                )

    def blocks(self) -> Blocks:
        """Return the location and encoding of the image's blocks, all of them within the file."""
        tiled = TILE_OFFSETS in self.entries
        blocks = Blocks(
            order=self.order,
            tiled=tiled,
            bits=int(self.integers(BITS_PER_SAMPLE)[0]),
            predictor=int(self.integers(PREDICTOR)[0]) if PREDICTOR in self.entries else 1,
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
                raise self._truncated("all blocks before their end")
        return blocks

    def content(self) -> bytes | None:
        """Return the directory as bytes, equal for files that differ only in the values of `PLACEMENT`.

        None if the other values are too large, or of a type that TIFF 6.0 and BigTIFF do not define.
        """
        kept = {tag: (kind, count) for tag, (kind, count, _) in self.entries.items() if tag not in PLACEMENT}
        if sum(TYPE_BYTES.get(kind, MAX_CONTENT + 1) * count for kind, count in kept.values()) > MAX_CONTENT:
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
            raise self._truncated(f"{what} up to byte {end:,}")

    def _truncated(self, expected: str) -> GeoTiffError:
        return GeoTiffError(f"has {len(self._data):,} bytes, expected {expected}: truncated or damaged")
