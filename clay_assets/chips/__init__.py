"""Reads a chip: a GeoTIFF's bytes in; pixels, date and place out, or the reason why it is rejected.

    reading        a chip's file name; all steps in order
    geotiff        header and samples of a TIFF; `directory` finds its blocks, `deflate` decodes them
    rejection      rejects files by their header
    pixels         rejects files by their pixels
    place          centre and footprint; cuts footprints at the antimeridian for publishing

Not here: fetching the bytes (`storage`), processing many chips (`embedding.stream`).
"""

from clay_assets.chips.pixels import MAX_NODATA
from clay_assets.chips.reading import READER_VERSION, Chip, ChipName, read_chip
from clay_assets.chips.rejection import MAX_CHIP_BYTES, ChipRejected, Reason

__all__ = [
    "MAX_CHIP_BYTES",
    "MAX_NODATA",
    "READER_VERSION",
    "Chip",
    "ChipName",
    "ChipRejected",
    "Reason",
    "read_chip",
]
