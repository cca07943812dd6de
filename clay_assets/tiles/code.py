"""A tile's code in the Military Grid Reference System, as it stands in names and manifests.

The code's letters and digits only. Which tiles are of interest: `manifest`; where one is: `bounds`.
"""

import re

TILE_PATTERN = r"(?:0[1-9]|[1-5][0-9]|60)[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V]"
"""A 100 km square as Sentinel-2 writes it: UTM zone, latitude band, column, row. Has no group."""

TILE_CODE = re.compile(TILE_PATTERN)
"""For `fullmatch`."""
