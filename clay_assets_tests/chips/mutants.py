"""Damages GeoTIFFs, reproducibly by number on any machine. `fuzz` checks how they are read."""

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.shutil import copy

from clay_assets.chips.directory import DIALECTS, Dialect, Directory
from clay_assets_tests.geotiffs import LAYOUTS, chip_bytes, chip_name, chip_pixels
from clay_model.spec import V0, V15, ModelSpec

Random = np.random.Generator

SMALL = 256
"""Pixels along the side of most files: allowed for Clay v1.5, and five times as fast."""

EDGES = [0, 1, 2, 7, 255, 256, 257, 4096, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
"""Numbers at the limits of integer types."""

# Tags of the TIFF and GeoTIFF specifications, and values of them that a reader may know.
COMPRESSION, SAMPLE_FORMAT, BITS_PER_SAMPLE, PREDICTOR, PLANAR = 259, 339, 258, 317, 284
SIZES = (256, 257, 278, 322, 323)
CODECS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32809, 32946, 34661, 34676, 34712, 34887, 34892, 34925, 50000, 50001)
GEO_DOUBLES, GEO_KEYS, GEO_TEXTS = (33550, 33922, 34264, 34736), 34735, 34737
GDAL_METADATA, GDAL_NODATA = 42112, 42113

KEYS = (0, 1, 2, 3, 9, 1024, 2048, 3072, 4267, 4326, 27700, 31467, 32661, 32767, 34736, 34737, 65_535)
DATES = ("0000-01-01", "0001-01-01", "9999-12-31", "2020-02-30", "20200615", "2020-06-15T25", "0")
DAYS = ("00000101", "00010101", "99991231", "20200230", "20200615", "00000000")


@dataclass(frozen=True)
class Base:
    """A good file.

    Attributes:
        data: The file.
        spec: The model that reads it.
        pixels: Its pixels, (bands, rows, columns).
        deflated: Whether each of its blocks has a checksum.
    """

    data: bytes
    spec: ModelSpec
    pixels: NDArray[np.float32]
    deflated: bool


@dataclass(frozen=True)
class Mutant:
    """A file that a bucket might hold.

    Attributes:
        name: Its file name.
        data: Its bytes.
        base: The original.
        how: Description of the changes.
        only_pixels: Whether only compressed pixels were changed.
    """

    name: str
    data: bytes
    base: Base
    how: str
    only_pixels: bool


@functools.cache
def bases() -> tuple[Base, ...]:
    """Chips in every layout, sample type and kind of location; some have the size of Clay v0's."""
    small = chip_pixels(size=SMALL, bands=len(V15.bands))
    found = []
    for layout, options in LAYOUTS.items():
        more: dict[str, Any] = {"blockysize": SMALL} if layout == "one strip" else {}
        deflated = "compress" not in options
        for dtype in ("float32", "uint16"):
            if dtype == "float32" or options.get("predictor") != 3:
                data = chip_bytes(small.astype(dtype), layout=layout, **more)
                found.append(Base(data, V15, small.astype(np.float32), deflated))
    places = {
        "geographic": {"crs": "EPSG:4326", "origin": (-21.0, 69.0), "pixel": 1e-4},
        "Web Mercator": {"crs": "EPSG:3857", "origin": (-2_000_000, 9_000_000)},
        "polar": {"crs": "EPSG:3031", "origin": (300_000, -1_200_000)},
        "New Zealand": {"crs": "EPSG:2193", "origin": (1_600_000, 5_400_000)},
        "rotated": {"transform": Affine(8, 6, 600_000, 6, -8, 7_700_040), "origin": None},
    }
    for place in places.values():
        data = chip_bytes(small, bands=V15.bands, **place)  # type: ignore[arg-type]
        found.append(Base(data, V15, small.astype(np.float32), deflated=True))
    found.append(Base(_cloud_optimised(chip_bytes(small)), V15, small.astype(np.float32), deflated=True))
    whole = chip_pixels()
    for layout in ("bucket layout", "tiles with a predictor", "BigTIFF"):
        found.append(Base(chip_bytes(whole, layout=layout), V0, whole, deflated=True))
    return tuple(found)


def mutant(number: int) -> Mutant:
    """The mutant of this number."""
    random = np.random.default_rng(number)
    base = bases()[random.integers(len(bases()))]
    if random.random() < 0.25:
        data = _damage_pixels(random, base.data)
        return Mutant(chip_name(), data, base, "damaged pixels", only_pixels=True)
    data, done = base.data, []
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        change = CHANGES[random.integers(len(CHANGES))]
        data = change(random, data)
        done.append(change.__name__.strip("_").replace("_", " "))
    name = chip_name()
    if random.random() < 0.05:
        name = name.replace("20200615", str(random.choice(DAYS)))
    return Mutant(name, data, base, ", ".join(done), only_pixels=False)


def _cloud_optimised(data: bytes) -> bytes:
    with MemoryFile(data) as source, MemoryFile() as target, source.open() as dataset:
        copy(dataset, target.name, driver="COG", compress="deflate", blocksize=128, overviews="auto")
        return bytes(target.read())


def _damage_pixels(random: Random, data: bytes) -> bytes:
    """Bits, bytes or runs of compressed pixels."""
    blocks = Directory(data).blocks()
    kept = np.flatnonzero(blocks.counts)
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 8])):
        block = kept[random.integers(len(kept))]
        start, count = int(blocks.offsets[block]), int(blocks.counts[block])
        place = start + int(random.integers(count))
        how = random.integers(3)
        if how == 0:
            changed[place] ^= 1 << int(random.integers(8))
        elif how == 1:
            changed[place] = int(random.integers(256))
        else:
            end = min(start + count, place + int(random.integers(1, 64)))
            changed[place:end] = random.bytes(end - place)
    return bytes(changed)


def _flipped_bits(random: Random, data: bytes) -> bytes:
    changed, start = bytearray(data), int(random.choice([0, len(data) * 19 // 20]))
    for _ in range(random.choice([1, 3, 8, 30])):
        changed[random.integers(min(start, len(changed) - 1), len(changed))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _damaged_start(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[random.integers(min(16, len(data)))] = int(random.integers(256))
    return bytes(changed)


def _other_dialect(random: Random, data: bytes) -> bytes:
    """Another byte order or size of pointers than the rest of the file has."""
    return [*DIALECTS][random.integers(len(DIALECTS))] + data[4:]


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.integers(len(data)) + 1]


def _cut_out(random: Random, data: bytes) -> bytes:
    start, length = random.integers(len(data)), random.integers(1, 200)
    return data[:start] + data[start + length :] or b"I"


def _doubled(random: Random, data: bytes) -> bytes:
    start, length = random.integers(len(data)), random.integers(1, 2000)
    return data[: start + length] + data[start:]


def _spliced(random: Random, data: bytes) -> bytes:
    """Half of one file, half of another."""
    other = bases()[random.integers(len(bases()))].data
    place = random.integers(1, min(len(data), len(other)))
    return data[:place] + other[place:]


def _overwritten(random: Random, data: bytes) -> bytes:
    changed, place = bytearray(data), int(random.integers(len(data)))
    edge = EDGES[random.integers(len(EDGES))].to_bytes(8, "little" if random.random() < 0.5 else "big")
    size = int(random.choice([1, 2, 4, 8]))
    changed[place : place + size] = edge[:size]
    return bytes(changed)


@dataclass(frozen=True)
class _Entries:
    """Positions of a directory's entries, for changing them."""

    dialect: Dialect
    positions: list[int]

    @property
    def number_size(self) -> int:
        return struct.calcsize(self.dialect.order + self.dialect.pointer)

    @classmethod
    def of(cls, data: bytes) -> "_Entries | None":
        """The entries; None if earlier damage destroyed the directory."""
        dialect = DIALECTS.get(data[:4])
        try:
            if dialect is None:
                return None
            (start,) = struct.unpack_from(dialect.order + dialect.pointer, data, dialect.start)
            (count,) = struct.unpack_from(dialect.order + dialect.number, data, start)
        except (struct.error, OverflowError):
            return None
        size = struct.calcsize(dialect.order + dialect.pointer)
        first, step = start + struct.calcsize(dialect.order + dialect.number), 4 + 2 * size
        positions = [p for p in range(first, first + step * min(count, 64), step) if p + step <= len(data)]
        return cls(dialect, positions) if positions else None

    def tag(self, data: bytes, position: int) -> int:
        return int(struct.unpack_from(f"{self.dialect.order}H", data, position)[0])

    def put(self, changed: bytearray, position: int, field: int, value: int) -> None:
        """Set tag (0), type (1), count (2) or value (3) of an entry."""
        letter = "HH"[field] if field < 2 else self.dialect.pointer
        place = position + (2 * field if field < 2 else 4 + (field - 2) * self.number_size)
        size = struct.calcsize(self.dialect.order + letter)
        struct.pack_into(self.dialect.order + letter, changed, place, value % (1 << 8 * size))

    def short(self, changed: bytearray, position: int, value: int) -> None:
        """Set the value of an entry as one integer of its type."""
        kind = struct.unpack_from(f"{self.dialect.order}H", changed, position + 2)[0]
        place = position + 4 + self.number_size
        letter = {3: "H", 4: "I", 16: "Q"}.get(kind, "H")
        size = struct.calcsize(self.dialect.order + letter)
        struct.pack_into(self.dialect.order + letter, changed, place, value % (1 << 8 * size))


def _changed_entry(random: Random, data: bytes) -> bytes:
    """Tag, type, count or value of any entry."""
    entries, changed = _Entries.of(data), bytearray(data)
    if entries is not None:
        position = entries.positions[random.integers(len(entries.positions))]
        field = int(random.integers(4))
        value = EDGES[random.integers(len(EDGES))] if random.random() < 0.6 else int(random.integers(1 << 16))
        entries.put(changed, position, field, value)
    return bytes(changed)


def _changed_tag(random: Random, data: bytes, tags: tuple[int, ...], values: tuple[int, ...]) -> bytes:
    entries, changed = _Entries.of(data), bytearray(data)
    if entries is not None:
        for position in entries.positions:
            if entries.tag(data, position) in tags and random.random() < 0.7:
                entries.short(changed, position, values[random.integers(len(values))])
    return bytes(changed)


def _other_size(random: Random, data: bytes) -> bytes:
    return _changed_tag(random, data, SIZES, (*EDGES[:12], 128, 512, 1024, 32_768))


def _other_codec(random: Random, data: bytes) -> bytes:
    return _changed_tag(random, data, (COMPRESSION,), CODECS)


def _other_samples(random: Random, data: bytes) -> bytes:
    tag = int(random.choice([SAMPLE_FORMAT, BITS_PER_SAMPLE, PREDICTOR, PLANAR]))
    return _changed_tag(random, data, (tag,), (0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 32, 64, 65_535))


def _without_an_entry(random: Random, data: bytes) -> bytes:
    return _renamed_entry(random, data, 65_000)


def _renamed_entry(random: Random, data: bytes, tag: int) -> bytes:
    entries, changed = _Entries.of(data), bytearray(data)
    if entries is not None:
        entries.put(changed, entries.positions[random.integers(len(entries.positions))], 0, tag)
    return bytes(changed)


def _values_of(data: bytes, *tags: int) -> range:
    """Position of the values of one of these tags, if they are not in the entry itself."""
    entries = _Entries.of(data)
    for position in entries.positions if entries is not None else ():
        assert entries is not None
        if entries.tag(data, position) in tags:
            kind = struct.unpack_from(f"{entries.dialect.order}H", data, position + 2)[0]
            count, start = struct.unpack_from(
                f"{entries.dialect.order}2{entries.dialect.pointer}", data, position + 4
            )
            end = start + count * {2: 1, 3: 2, 12: 8}.get(kind, 4)
            if start < end <= len(data):
                return range(start, end)
    return range(0)


def _other_place(random: Random, data: bytes) -> bytes:
    """Other numbers of the geotransform or the reference system: infinite, tiny, huge, none."""
    tags = GEO_DOUBLES[: random.integers(1, 5)][::-1]
    span, changed = _values_of(data, *tags), bytearray(data)
    if len(span) >= 8:
        value = float(random.choice([np.nan, np.inf, -np.inf, 0, 1e-300, 1e300, -1e7, 5e-324, 180.0001]))
        place = span[8 * int(random.integers(len(span) // 8))]
        order = DIALECTS[data[:4]].order
        struct.pack_into(f"{order}d", changed, place, value)
    return bytes(changed)


def _other_keys(random: Random, data: bytes) -> bytes:
    """Other keys of the reference system."""
    span, changed = _values_of(data, GEO_KEYS), bytearray(data)
    for _ in range(random.integers(1, 4)):
        if len(span) >= 2:
            place, order = span[2 * int(random.integers(len(span) // 2))], DIALECTS[data[:4]].order
            struct.pack_into(f"{order}H", changed, place, KEYS[random.integers(len(KEYS))])
    return bytes(changed)


def _other_text(random: Random, data: bytes) -> bytes:
    """Damaged bytes in a text: of the metadata, the reference system, the no-data value."""
    tag = int(random.choice([GEO_TEXTS, GDAL_METADATA, GDAL_METADATA, GDAL_NODATA]))
    span, changed = _values_of(data, tag), bytearray(data)
    for _ in range(random.choice([1, 2, 10])):
        if span:
            changed[span[random.integers(len(span))]] = int(random.integers(256))
    return bytes(changed)


def _other_date(random: Random, data: bytes) -> bytes:
    date = DATES[random.integers(len(DATES))].encode().ljust(10)[:10]
    return data.replace(b"2020-06-15", date)


Change = Callable[[Random, bytes], bytes]
CHANGES: tuple[Change, ...] = (
    _flipped_bits, _damaged_start, _other_dialect, _cut, _cut_out, _doubled, _spliced, _overwritten,
    _changed_entry, _changed_entry, _changed_entry, _other_size, _other_size, _other_codec, _other_samples,
    _without_an_entry, _other_place, _other_place, _other_keys, _other_text, _other_text, _other_date,
)  # fmt: skip
"""Changes to choose from; those that find more are listed twice."""
