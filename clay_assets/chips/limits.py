"""What pixels may hold: the range of each band, fills that stand for no data, how many of those are too many.

Numbers and where they come from, nothing else; `pixels` holds chips against them. The ranges are wider than
nature: they keep out what is no measurement (a fill, another unit, damage), and refuse no real chip.
"""

from collections.abc import Mapping
from types import MappingProxyType

from clay_model.spec import BANDS

REFLECTANCE = (-2_000.0, 100_000.0)
"""Of an optical band, reflectance x 10,000.

Sentinel-2 L2A has uint16 digital numbers, 0 for no data and 65,535 for saturation; since processing baseline
04.00 they are 1,000 higher than the reflectance, so that harmonised ones begin at -999. Twice that, and half
as much again as 65,535: resampling by cubic convolution overshoots.
"""

BACKSCATTER = (-1.0, 1e6)
"""Of a SAR band, linear power.

Subtracting noise leaves values just below 0; in decibels, the wrong unit, nearly all are below -1. A
Sentinel-1 product has uint16 amplitudes whose calibration divides by some hundreds: 65,535 is 45 dB, and
flattening the terrain adds to that on slopes towards the radar. 1e6 is 60 dB.
"""

HEIGHT = (-1_000.0, 10_000.0)
"""Of the dem, metres: the Dead Sea's shore (-440) to Mount Everest (8,849). The margin is for errors of a
model and for heights above the ellipsoid, which differ from those above the geoid by up to 107."""

OPTICAL = BANDS[: BANDS.index("vh")]
"""Names of the optical bands."""

LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {**dict.fromkeys(OPTICAL, REFLECTANCE), "vh": BACKSCATTER, "vv": BACKSCATTER, "dem": HEIGHT}
)
"""Lowest and highest value of each band, by its name."""

FILLS = (-9_999.0, -32_768.0, -3.4028234663852886e38)
"""Values that stand for no data in many files, declared or not: two customs, and the lowest float32."""

MAX_NODATA = 0.3
"""Default of the highest share of a chip's pixels without data.

The code that cut the chips for Clay v0 (Clay-foundation/model, scripts/pipeline/tile.py) left out those with
30 % of clouds, shadows and no data, and those with a single 0 in B02: of chips that it cut none comes near.
"""
