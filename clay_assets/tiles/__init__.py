"""Tiles: the code (here), the manifest, the bounds on the ground, the inventory of chips.

    manifest.py   the list of tiles: reading it, and writing that of a bucket
    bounds.py     a tile's bounds, from its code
    inventory.py  the chips of a tile, from a listing

Not here: the state of a tile (`state`).
"""

import re

# A 100 km square of the Military Grid Reference System (MGRS) as Sentinel-2 writes it: UTM zone, latitude
# band, column, row. Without groups.
TILE_PATTERN = r"(?:0[1-9]|[1-5][0-9]|60)[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V]"
TILE_CODE = re.compile(TILE_PATTERN)  # for `fullmatch`
