"""Limits that `pixels` checks: the range of each band, fill values, the share of pixels without data.

The ranges are wider than those of real measurements: they reject fill values, other units and damage, but no
real chip.
"""

from collections.abc import Mapping
from types import MappingProxyType

from clay_model.spec import BANDS

REFLECTANCE = (-2_000.0, 100_000.0)
"""Range of an optical band, reflectance x 10,000.

Sentinel-2 L2A has uint16 digital numbers, 0 for no data and 65,535 for saturation. Since processing baseline
04.00 they have an offset of 1,000, so harmonised values begin at -999. The limits are twice that and one and
a half times 65,535, because resampling by cubic convolution overshoots.
"""

BACKSCATTER = (-1.0, 1e6)
"""Range of a SAR band, linear power.

Noise subtraction leaves values just below 0; in decibels, the wrong unit, nearly all are below -1. A
Sentinel-1 product has uint16 amplitudes that calibration divides by some hundreds: 65,535 is 45 dB, and
terrain flattening increases it on slopes towards the radar. 1e6 is 60 dB.
"""

HEIGHT = (-1_000.0, 10_000.0)
"""Range of the dem, metres: the Dead Sea's shore (-440) to Mount Everest (8,849), with a margin for errors
and for heights above the ellipsoid, which differ from those above the geoid by up to 107."""

OPTICAL = BANDS[: BANDS.index("vh")]
"""Names of the optical bands."""

LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {**dict.fromkeys(OPTICAL, REFLECTANCE), "vh": BACKSCATTER, "vv": BACKSCATTER, "dem": HEIGHT}
)
"""Lowest and highest value of each band, by its name."""

FILLS = (-9_999.0, -32_768.0, -3.4028234663852886e38)
"""Common no-data values, declared or not: two conventions and the lowest float32."""

MAX_NODATA = 0.3
"""Default of the highest accepted share of a chip's pixels without data.

The code that made the chips of Clay v0 (Clay-foundation/model, scripts/pipeline/tile.py) dropped chips with
30 % of clouds, shadows and no data, and those with a single 0 in B02: its chips are far below this.
"""
