"""The pattern of a tile's code in the Military Grid Reference System (MGRS)."""

import re

TILE_PATTERN = r"(?:0[1-9]|[1-5][0-9]|60)[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V]"
"""A 100 km square as Sentinel-2 writes it: UTM zone, latitude band, column, row. Without groups."""

TILE_CODE = re.compile(TILE_PATTERN)
"""For `fullmatch`."""
