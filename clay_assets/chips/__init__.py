"""One GeoTIFF in; pixels, date and place out, or the reason why not.

Here: what a chip is called (`name`), how a TIFF is read safely and fast (`geotiff`), what is refused
(`rejection` by the header, `pixels` by the values, held against `limits`), where a chip lies (`place`,
`antimeridian`), and all of it in order (`reading`). Everything works on bytes in
memory. Not here: fetching those bytes (`storage`), what becomes of many chips (`stream`).
"""

from clay_assets.chips.limits import MAX_NODATA
from clay_assets.chips.name import ChipName
from clay_assets.chips.reading import READER_VERSION, Chip, read_chip
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
