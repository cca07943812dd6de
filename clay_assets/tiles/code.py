"""How a tile is called: its code in the Military Grid Reference System, wherever a name or a line holds one.

Here the code's letters and digits only. Which tiles are of interest: `partitions`; where one lies:
`checks.tile_bounds`.
"""

TILE_PATTERN = r"(?:0[1-9]|[1-5][0-9]|60)[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V]"
"""A 100 km square as Sentinel-2 writes it: UTM zone, latitude band, column, row. Holds no group."""
