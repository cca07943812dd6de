"""Tiles: the code, the manifest, the bounds on the ground, the inventory of chips."""

import re

# A 100 km square of the Military Grid Reference System (MGRS) as Sentinel-2 writes it: UTM zone, latitude
# band, column, row. Without groups.
TILE_PATTERN = r"(?:0[1-9]|[1-5][0-9]|60)[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V]"
TILE_CODE = re.compile(TILE_PATTERN)  # for `fullmatch`
