"""One GeoTIFF in; pixels, date and place out, or the reason why not.

Here: what a chip is called (`name`), how a TIFF is read safely and fast (`geotiff`), what is refused
(`rejection`), where a chip lies (`place`), and all of it in order (`reading`). Everything works on bytes in
memory. Not here: fetching those bytes (`storage`), what becomes of many chips (`stream`).
"""

from clay_assets.chips.name import ChipName
from clay_assets.chips.reading import Chip, read_chip
from clay_assets.chips.rejection import MAX_CHIP_BYTES, ChipRejected, Reason

__all__ = ["MAX_CHIP_BYTES", "Chip", "ChipName", "ChipRejected", "Reason", "read_chip"]
