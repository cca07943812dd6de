"""Decodes deflated blocks and verifies every checksum.

A block is a zlib stream, which ends with the Adler-32 of its content. libtiff, and so GDAL, stops as soon as
it has enough samples: it never reaches the checksum of a stream that damage made longer. In that way 15 % of
single flipped bits gave wrong pixels, some of them different on every read. This module rejects all of them.

The bucket's chips have strips: one call without the GIL decodes the whole image, and one more computes the
checksum. Files with tiles or predictors have few blocks and are decoded block by block.
"""

import sys
import zlib
from itertools import product
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from clay_assets.chips.directory import Blocks, GeoTiffError

ADLER_BASE = 65521  # modulus of Adler-32: the largest prime below 2^16
NATIVE = "<" if sys.byteorder == "little" else ">"


def inflate(data: bytes, blocks: Blocks, block: tuple[int, int], samples: NDArray[Any]) -> None:
    """Decode all blocks of a TIFF, none of which may be omitted; raise `GeoTiffError` if one is damaged.

    Writes to `samples` (planes, rows, columns, samples of a pixel), contiguous, of the file's sample type in
    native byte order. A file has one plane, or one for each band. A block has `block` rows and columns.
    """
    plain = blocks.predictor == 1 and blocks.order == NATIVE
    if plain and not blocks.tiled and _inflate_strips(data, blocks, block[0], samples):
        return
    planes, rows, columns, width = samples.shape
    height, breadth = block
    corners = [*product(range(planes), range(0, rows, height), range(0, columns, breadth))]
    if len(corners) != len(blocks.offsets):
        raise GeoTiffError(f"has {len(blocks.offsets):,} blocks, expected {len(corners):,}")
    scratch = np.empty((height, breadth, width), samples.dtype)
    ends = (blocks.offsets + blocks.counts).tolist()
    for number, (start, end) in enumerate(zip(blocks.offsets.tolist(), ends, strict=True)):
        plane, top, left = corners[number]
        target = samples[plane, top : top + height, left : left + breadth]
        in_place = plain and target.shape == scratch.shape and target.flags.c_contiguous
        inflated = target if in_place else scratch
        # The last strip may be as long as the others, or end where the image does.
        stored = inflated if blocks.tiled else inflated[: rows - top]
        try:
            out = inflated.reshape(-1).view(np.uint8).data
            got, trouble = len(imagecodecs.deflate_decode(data[start:end], out=out)), "too short"
        except imagecodecs.DeflateError as error:
            got, trouble = 0, str(error)
        if got < stored.nbytes:
            raise GeoTiffError(
                f"has damage in block {number + 1:,} of {len(corners):,}, expected {stored.nbytes:,} bytes"
                f" and their checksum: {trouble}"
            )
        if not in_place:
            _put(stored, blocks, target)


def verify(data: bytes, blocks: Blocks, longest: int) -> None:
    """Verify the checksums of blocks that GDAL will read, each at most `longest` bytes when decoded.

    Omitted blocks are skipped; `GeoTiffError` is raised if a block is damaged.
    """
    spans = zip(blocks.offsets.tolist(), blocks.counts.tolist(), strict=True)
    for number, (start, count) in enumerate(spans, start=1):
        stream = zlib.decompressobj()
        try:
            stream.decompress(data[start : start + count], longest + 1)
            trouble = "it does not end" if count and not stream.eof else ""
        except zlib.error as error:
            trouble = str(error)
        if trouble:
            raise GeoTiffError(f"has damage in block {number:,} of {len(blocks.offsets):,}: {trouble}")


def _inflate_strips(data: bytes, blocks: Blocks, height: int, samples: NDArray[Any]) -> bool:
    """Decode all strips in one call; return False if the samples do not match the checksums."""
    planes, rows, columns, width = samples.shape
    heights = np.minimum(height, rows - np.arange(0, rows, height))
    lengths = np.tile(heights, planes) * (columns * width * samples.itemsize)
    if len(lengths) != len(blocks.offsets) or blocks.counts.min() < 4:
        return False
    try:
        imagecodecs.tiff_decode(data, out=samples.reshape([size for size in samples.shape if size > 1]))
    except (imagecodecs.TiffError, ValueError, IndexError):  # the last two: damage that it does not recognise
        return False
    ends = (blocks.offsets + blocks.counts)[:, None]
    checksums = np.frombuffer(data, np.uint8)[ends + np.arange(-4, 0)].view(">u4")[:, 0]
    found = imagecodecs.deflate_adler32(samples.reshape(-1).view(np.uint8))  # type: ignore[arg-type] # any buffer
    return joined_adler32(checksums, lengths) == found


def joined_adler32(checksums: NDArray[np.integer[Any]], lengths: NDArray[np.int64]) -> int:
    """Return the Adler-32 of concatenated parts, from the Adler-32 (N,) and bytes (N,) of each part.

    Adler-32 has two sums: low is 1 plus the sum of all bytes, high is the sum of low after each byte. In a
    part that is not the first, low is higher by the sum of the bytes before it.
    """
    low, high = checksums.astype(np.int64) & 0xFFFF, checksums.astype(np.int64) >> 16
    bytes_up_to = np.cumsum(low - 1)
    bytes_before = bytes_up_to - (low - 1)
    joined_low = (1 + bytes_up_to[-1]) % ADLER_BASE
    joined_high = (high + lengths % ADLER_BASE * (bytes_before % ADLER_BASE)).sum() % ADLER_BASE
    return int(joined_high << 16 | joined_low)


def _put(stored: NDArray[Any], blocks: Blocks, target: NDArray[Any]) -> None:
    """Copy a decoded block into the image: undo the predictor, in place, and crop what exceeds the image."""
    decoded = stored.view(stored.dtype.newbyteorder(blocks.order))
    if blocks.predictor == 2:  # differences between the samples' bits, of any type
        bits = decoded.view(f"{blocks.order}u{decoded.itemsize}")
        imagecodecs.delta_decode(bits, axis=1, out=bits)
    elif blocks.predictor == 3:
        # float32 as differences between neighbouring bytes, most significant bytes of a row first.
        # imagecodecs' own function for this takes twice as long.
        rows, columns, width = stored.shape
        differences = stored.reshape(rows, -1).view(np.uint8).reshape(rows, 4 * columns, width)
        imagecodecs.delta_decode(differences, axis=1, out=differences)
        significant = differences.reshape(rows, 4, columns, width)
        numbers = significant[:, 0].astype(np.uint32)
        for byte in range(1, 4):
            numbers <<= 8
            numbers |= significant[:, byte]
        decoded = numbers.view(np.float32)
    target[...] = decoded[: target.shape[0], : target.shape[1]]
