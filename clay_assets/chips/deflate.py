"""Deflated blocks into samples, every checksum verified.

A block is a zlib stream, which ends with the Adler-32 of what it holds. libtiff, and so GDAL, stops when it
has enough samples: a stream that damage made longer is never read up to its checksum. Of single flipped bits,
15 % gave wrong pixels that way, and some of those other ones at every reading. Here all are refused.

Strips, which is what the bucket has, take one call outside the GIL for the whole image and one more for the
checksums of all. Tiles and predictors, of which a chip has few blocks, go block by block.
"""

import sys
import zlib
from itertools import product
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from clay_assets.chips.directory import Blocks, GeoTiffError

ADLER_BASE = 65521
"""Adler-32 counts modulo the largest prime below 2^16."""

NATIVE = "<" if sys.byteorder == "little" else ">"


def inflate(data: bytes, blocks: Blocks, block: tuple[int, int], samples: NDArray[Any]) -> None:
    """Decode all blocks of a TIFF.

    Args:
        data: The whole file.
        blocks: Where they are; none may be left out.
        block: Rows and columns of each.
        samples: To be filled: (planes, rows, columns, samples of a pixel), contiguous, of the file's sample
            type in this machine's byte order. A file has one plane, or one for each band.

    Raises:
        GeoTiffError: If a block is damaged.
    """
    plain = not blocks.tiled and blocks.predictor == 1 and blocks.order == NATIVE
    if not (plain and _inflate_strips(data, blocks, block[0], samples)):
        _inflate_blocks(data, blocks, block, samples)


def verify(data: bytes, blocks: Blocks, longest: int) -> None:
    """Hold blocks that GDAL is to read against their checksums.

    Args:
        data: The whole file.
        blocks: Where they are; those left out are left alone.
        longest: Most bytes that a block may hold.

    Raises:
        GeoTiffError: If a block is damaged.
    """
    spans = zip(blocks.offsets.tolist(), blocks.counts.tolist(), strict=True)
    for number, (start, count) in enumerate(spans, start=1):
        stream = zlib.decompressobj()
        try:
            stream.decompress(data[start : start + count], longest + 1)
        except zlib.error as error:
            count = len(blocks.offsets)
            raise GeoTiffError(f"has damage in block {number:,} of {count:,}: {error}") from error
        if count and not stream.eof:
            raise GeoTiffError(f"has damage in block {number:,} of {len(blocks.offsets):,}: it does not end")


def _inflate_strips(data: bytes, blocks: Blocks, height: int, samples: NDArray[Any]) -> bool:
    """All strips at once; False if the outcome is not what the checksums promise."""
    planes, rows, columns, width = samples.shape
    heights = np.minimum(height, rows - np.arange(0, rows, height))
    lengths = np.tile(heights, planes) * (columns * width * samples.itemsize)
    if len(lengths) != len(blocks.offsets) or blocks.counts.min() < 4:
        return False
    try:
        imagecodecs.tiff_decode(data, out=samples.reshape([size for size in samples.shape if size > 1]))
    except (imagecodecs.TiffError, ValueError, IndexError):  # the latter two: it has no words for the damage
        return False
    ends = (blocks.offsets + blocks.counts)[:, None]
    checksums = np.frombuffer(data, np.uint8)[ends + np.arange(-4, 0)].view(">u4")[:, 0]
    found = imagecodecs.deflate_adler32(samples.reshape(-1).view(np.uint8))  # type: ignore[arg-type] # any buffer
    return joined_adler32(checksums, lengths) == found


def joined_adler32(checksums: NDArray[np.integer[Any]], lengths: NDArray[np.int64]) -> int:
    """The Adler-32 of all parts in a row, from those of the parts.

    Adler-32 is two sums: low, one more than that of all bytes; high, that of all lows on the way. Where a
    part does not stand first, each of its lows is higher by the bytes before it.

    Args:
        checksums: (N,) Adler-32 of each part.
        lengths: (N,) bytes of each part.
    """
    low, high = checksums.astype(np.int64) & 0xFFFF, checksums.astype(np.int64) >> 16
    bytes_up_to = np.cumsum(low - 1)
    bytes_before = bytes_up_to - (low - 1)
    joined_low = (1 + bytes_up_to[-1]) % ADLER_BASE
    joined_high = (high + lengths % ADLER_BASE * (bytes_before % ADLER_BASE)).sum() % ADLER_BASE
    return int(joined_high << 16 | joined_low)


def _inflate_blocks(data: bytes, blocks: Blocks, block: tuple[int, int], samples: NDArray[Any]) -> None:
    """One block after the other: of any kind, and strictly."""
    planes, rows, columns, width = samples.shape
    height, breadth = block
    corners = [*product(range(planes), range(0, rows, height), range(0, columns, breadth))]
    if len(corners) != len(blocks.offsets):
        raise GeoTiffError(f"has {len(blocks.offsets):,} blocks, expected {len(corners):,}")
    scratch = np.empty((height, breadth, width), samples.dtype)
    plain = blocks.predictor == 1 and blocks.order == NATIVE
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


def _put(stored: NDArray[Any], blocks: Blocks, target: NDArray[Any]) -> None:
    """Put what a block's stream holds, less the predictor and what overhangs the image, to its place."""
    if blocks.predictor == 3:
        decoded = _without_float_predictor(stored)
    else:
        decoded = stored.view(stored.dtype.newbyteorder(blocks.order))
    if blocks.predictor == 2:  # differences between the samples' bits, whatever those stand for
        bits = decoded.view(f"{blocks.order}u{decoded.itemsize}")
        imagecodecs.delta_decode(bits, axis=1, out=bits)
    target[...] = decoded[: target.shape[0], : target.shape[1]]


def _without_float_predictor(stored: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 from differences between neighbouring bytes, the most significant bytes of a row first.

    Overwrites `stored`. imagecodecs has this as one function, which takes twice as long.
    """
    rows, columns, width = stored.shape
    differences = stored.reshape(rows, -1).view(np.uint8).reshape(rows, 4 * columns, width)
    imagecodecs.delta_decode(differences, axis=1, out=differences)
    significant = differences.reshape(rows, 4, columns, width)
    numbers = significant[:, 0].astype(np.uint32)
    for byte in range(1, 4):
        numbers <<= 8
        numbers |= significant[:, byte]
    return numbers.view(np.float32)
