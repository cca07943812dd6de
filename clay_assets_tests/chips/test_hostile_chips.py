"""Damaged and hostile files: each is read correctly or refused, in the memory of a chip."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from rasterio.errors import RasterioIOError
from rasterio.io import MemoryFile

from clay_assets.chips import ChipRejected, read_chip
from clay_assets.chips.deflate import joined_adler32
from clay_assets_tests.geotiffs import (
    IMAGE_LENGTH,
    IMAGE_WIDTH,
    LAYOUTS,
    ROWS_PER_STRIP,
    SAMPLES_PER_PIXEL,
    STRIP_BYTE_COUNTS,
    STRIP_OFFSETS,
    TILE_LENGTH,
    TILE_WIDTH,
    VRT,
    chip_bytes,
    chip_name,
    chip_pixels,
    directory_offset,
    first_values,
    good_chip,
    read_with_rasterio,
    with_bomb,
    with_cyclic_directories,
    with_tag,
)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

DEFLATED = [layout for layout, options in LAYOUTS.items() if "compress" not in options]


def read_or_refuse(data: bytes) -> np.ndarray | None:
    """The pixels, or None if the file is refused; any other error fails the test."""
    try:
        return read_chip(data, chip_name()).pixels
    except ChipRejected:
        return None


@pytest.mark.parametrize("layout", ["bucket layout", "tiles with a predictor", "BigTIFF", "big-endian"])
def test_a_file_truncated_at_any_byte_is_refused(layout: str) -> None:
    data = chip_bytes(layout=layout)
    cuts = {*range(0, 32), *range(32, len(data), len(data) // 40), *range(len(data) - 32, len(data))}
    for cut in cuts:
        with pytest.raises(ChipRejected) as refusal:
            read_chip(data[:cut], chip_name())
        # The metadata come last; without them the TIFF is complete, but not a chip.
        assert refusal.value.reason in ("format", "corrupt", "date", "crs")


@pytest.mark.parametrize("seed", range(5))
def test_flipped_bits_are_refused_or_leave_the_pixels_unchanged(seed: int) -> None:
    rng = np.random.default_rng(seed)
    files = [chip_bytes(layout=layout) for layout in DEFLATED]
    for _ in range(60):
        data = bytearray(files[rng.integers(len(files))])
        # Half of the damage is in the last twentieth, where the directory is.
        start = rng.choice([0, len(data) * 19 // 20])
        for _ in range(rng.choice([1, 1, 3, 8])):
            data[rng.integers(start, len(data))] ^= 1 << int(rng.integers(8))
        pixels = read_or_refuse(bytes(data))
        if pixels is not None:
            assert np.array_equal(pixels, read_with_rasterio(bytes(data)))


@pytest.mark.parametrize("layout", DEFLATED)
def test_a_flipped_bit_that_still_inflates_is_caught_by_its_checksum(layout: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (13, 512, 512), np.uint8)
    data = bytearray(chip_bytes(noise, layout=layout, predictor=1, zlevel=1))
    # Noise is stored uncompressed or as literals: a flipped bit changes a pixel, not the structure.
    data[len(data) // 3] ^= 4
    with pytest.raises(ChipRejected, match=r"damage in block [0-9,]+ of [0-9,]+, expected .* checksum"):
        read_chip(bytes(data), chip_name())


def test_a_block_cut_before_its_checksum_is_refused_if_gdal_decodes_it() -> None:
    pixels = chip_pixels()
    pixels[:, :16] = 0
    data = bytearray(chip_bytes(pixels, layout="sparse"))
    counts = first_values(bytes(data), STRIP_BYTE_COUNTS)
    place = data.index(struct.pack(f"<{len(counts)}I", *counts))
    struct.pack_into("<I", data, place + 4 * 300, counts[300] - 4)
    with pytest.raises(ChipRejected, match="damage in block 301 of 512: it does not end"):
        read_chip(bytes(data), chip_name())


def test_damage_that_gdal_reads_as_pixels_is_refused() -> None:
    """If a later GDAL refuses all of it, `deflate` can be simplified."""
    rng, taken = np.random.default_rng(0), 0
    for _ in range(60):
        data = bytearray(good_chip())
        data[rng.integers(2000, directory_offset(good_chip()))] ^= 1 << int(rng.integers(8))
        pixels = read_or_refuse(bytes(data))
        assert pixels is None or np.array_equal(pixels, chip_pixels())
        try:
            taken += not np.array_equal(read_with_rasterio(bytes(data)), chip_pixels())
        except RasterioIOError:
            assert pixels is None
    assert taken > 0


def test_strips_with_trailing_bytes_are_read() -> None:
    """Their checksum is not at the end of the block."""
    data = bytearray(good_chip())
    place = data.index(np.asarray(first_values(good_chip(), STRIP_BYTE_COUNTS), "<u4").tobytes())
    moved = len(data)
    offset, count = (first_values(good_chip(), tag)[7] for tag in (STRIP_OFFSETS, STRIP_BYTE_COUNTS))
    data += data[offset : offset + count] + b"padding"
    data[place + 7 * 4 : place + 8 * 4] = (count + 7).to_bytes(4, "little")
    place = data.index(np.asarray(first_values(good_chip(), STRIP_OFFSETS), "<u4").tobytes())
    data[place + 7 * 4 : place + 8 * 4] = moved.to_bytes(4, "little")
    assert np.array_equal(read_chip(bytes(data), chip_name()).pixels, chip_pixels())


@pytest.mark.parametrize("parts", [1, 2, 700])
def test_the_joined_checksum_of_parts_is_that_of_the_whole(parts: int) -> None:
    generator = np.random.default_rng(parts)
    blocks = [generator.bytes(int(size)) for size in generator.integers(1, 90_000, parts)]
    checksums = np.array([zlib.adler32(block) for block in blocks], np.uint32)
    lengths = np.array([len(block) for block in blocks])
    assert joined_adler32(checksums, lengths) == zlib.adler32(b"".join(blocks))


def test_cyclic_directories_are_not_followed() -> None:
    assert np.array_equal(read_chip(with_cyclic_directories(good_chip()), chip_name()).pixels, chip_pixels())


def test_a_vrt_named_like_a_chip_opens_no_other_file(tmp_path: Path) -> None:
    other = tmp_path / "other.tif"
    other.write_bytes(good_chip())
    vrt = VRT.replace(b"/etc/hostname", bytes(other))
    with MemoryFile(vrt) as file, file.open() as dataset:  # GDAL reads it if every driver is allowed
        assert dataset.driver == "VRT"
    with pytest.raises(ChipRejected, match="begins with b'<VRTDataset '") as refusal:
        read_chip(vrt, chip_name())
    assert refusal.value.reason == "format"


TILED = "tiles with a predictor"

HOSTILE = {
    "tiles of 55 GB": lambda: with_tag(
        with_tag(chip_bytes(layout=TILED), TILE_WIDTH, 1 << 15), TILE_LENGTH, 1 << 15
    ),
    "tiles of one pixel": lambda: with_tag(with_tag(chip_bytes(layout=TILED), TILE_WIDTH, 1), TILE_LENGTH, 1),
    "2 billion columns": lambda: with_tag(good_chip(), IMAGE_WIDTH, 2**31 - 1),
    "2 billion rows": lambda: with_tag(good_chip(), IMAGE_LENGTH, 2**31 - 1),
    "65,535 bands": lambda: with_tag(good_chip(), SAMPLES_PER_PIXEL, 65_535),
    "a million rows a strip": lambda: with_tag(good_chip(), ROWS_PER_STRIP, 1 << 20),
    "4 billion strips": lambda: with_tag(good_chip(), STRIP_OFFSETS, 100, count=2**32 - 1),
    "a list of strips beyond the end": lambda: with_tag(good_chip(), STRIP_OFFSETS, len(good_chip()) - 8),
    "strips of other data": lambda: with_tag(good_chip(), STRIP_OFFSETS, 8),
    "a strip that inflates to 512 MB": lambda: with_bomb(good_chip(), 512 << 20),
}

READ_ALL = """
import resource, sys
from pathlib import Path
from clay_assets.chips import ChipRejected, read_chip

def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

name = "claytile_27WXN_20200615_v02_0001.tif"
good, *hostile = (Path(argument).read_bytes() for argument in sys.argv[1:])
read_chip(good, name)
usual = peak()
for data in hostile:
    try:
        read_chip(data, name)
        sys.exit("a hostile file was read")
    except ChipRejected as refusal:
        print(refusal)
print(peak() - usual)
"""


def test_hostile_headers_and_bombs_are_refused_within_a_chip_s_memory(tmp_path: Path) -> None:
    paths = [tmp_path / "good.tif", *(tmp_path / f"{number}.tif" for number in range(len(HOSTILE)))]
    for path, data in zip(paths, [good_chip(), *(make() for make in HOSTILE.values())], strict=True):
        path.write_bytes(data)
    command = [sys.executable, "-c", READ_ALL, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 2 * 13 * 512 * 512 * 4, done.stdout
