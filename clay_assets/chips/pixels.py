"""Refuses pixels that cannot be embedded, and counts those without data.

No pixel is ever changed: filling a gap would invent a measurement. The ranges of the bands are wider than
those of real measurements: they reject fill values, other units and damage, but no real chip.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.chips.rejection import ChipRejected
from clay_model.spec import BANDS

OPTICAL = BANDS[: BANDS.index("vh")]

# Lowest and highest value of each band.
LIMITS = {
    # Reflectance x 10,000. Sentinel-2 L2A has uint16 digital numbers, 0 for no data and 65,535 for
    # saturation. Since processing baseline 04.00 they have an offset of 1,000, so harmonised values begin at
    # -999. The limits are twice that and one and a half times 65,535, because resampling by cubic convolution
    # overshoots.
    **dict.fromkeys(OPTICAL, (-2_000.0, 100_000.0)),
    # Linear power of SAR. Noise subtraction leaves values just below 0; in decibels, the wrong unit, nearly
    # all are below -1. A Sentinel-1 product has uint16 amplitudes that calibration divides by some hundreds:
    # 65,535 is 45 dB, and terrain flattening increases it on slopes towards the radar. 1e6 is 60 dB.
    **dict.fromkeys(("vh", "vv"), (-1.0, 1e6)),
    # Metres: the Dead Sea's shore (-440) to Mount Everest (8,849), with a margin for errors and for heights
    # above the ellipsoid, which differ from those above the geoid by up to 107.
    "dem": (-1_000.0, 10_000.0),
}

# Common no-data values, declared or not: two conventions and the lowest float32.
FILLS = (-9_999.0, -32_768.0, -3.4028234663852886e38)

# Default of the highest accepted share of a chip's pixels without data. The code that made the chips of Clay
# v0 (Clay-foundation/model, scripts/pipeline/tile.py) dropped chips with 30 % of clouds, shadows and no data,
# and those with a single 0 in B02: its chips are far below this.
MAX_NODATA = 0.3


def check_pixels(
    pixels: NDArray[Any], bands: Mapping[str, int], nodata: float | None, max_nodata: float
) -> float:
    """Refuse pixels (bands, rows, columns) that cannot be embedded; return `Chip.nodata` of the others.

    The share without data is checked first, so that the message of a chip that is mostly fill says so. A fill
    value outside a band's range (such as -9,999) is refused even in a single pixel: the network would take it
    for a measurement. One inside the range (0) is embedded as it is, up to a share of `max_nodata`.

    `bands` has the name and index of each band that the network takes, `nodata` the value that the file
    declares. Raises `ChipRejected` with the first reason that applies of `nodata`, `nonfinite` and `range`.
    """
    with np.errstate(all="ignore"):  # NaN and sums that overflow: such pixels are refused below
        low, high = (dict(zip(bands, ends[[*bands.values()]], strict=True)) for ends in extremes(pixels))
        optical = {band: pixels[place] for band, place in bands.items() if band in OPTICAL}
        share = _nodata_share(optical, low, high, nodata)
        if share > max_nodata:
            raise ChipRejected(
                "nodata", f"has {share:.1%} of pixels without data, expected at most {max_nodata:.1%}"
            )
        nonfinite = [
            f"{np.count_nonzero(~np.isfinite(pixels[place])):,} in {band}"
            for band, place in bands.items()
            if not (math.isfinite(low[band]) and math.isfinite(high[band]))
        ]
    if nonfinite:
        found = ", ".join(nonfinite)
        raise ChipRejected("nonfinite", f"has pixels that are NaN or infinite, expected none: {found}")
    outside = [
        f"{band} from {low[band]:g} to {high[band]:g}, expected {LIMITS[band][0]:g} to {LIMITS[band][1]:g}"
        for band in bands
        if low[band] < LIMITS[band][0] or high[band] > LIMITS[band][1]
    ]
    if outside:
        area = pixels[0].size
        fills = f"; {round(share * area):,} of {area:,} pixels hold a no-data value" if share else ""
        raise ChipRejected("range", f"has pixels that are not measurements: {', '.join(outside)}{fills}")
    return share


def extremes(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the lowest and highest value of each band of (bands, rows, columns); NaN if a band has a NaN."""
    # Reducing interleaved bands along both axes is strided and takes 88 ms. Half rows, which fit the L1 cache
    # together with their result, take 0.7 ms.
    if pixels.transpose(1, 2, 0).flags.c_contiguous:
        rows = pixels.transpose(1, 2, 0).reshape(2 * pixels.shape[1], -1)
        low, high = (ends.reshape(-1, len(pixels)) for ends in (rows.min(axis=0), rows.max(axis=0)))
        return low.min(axis=0), high.max(axis=0)
    return pixels.min(axis=(1, 2)), pixels.max(axis=(1, 2))


def _nodata_share(
    optical: Mapping[str, NDArray[Any]], low: Mapping[str, Any], high: Mapping[str, Any], nodata: float | None
) -> float:
    """Return the share of pixels without data; read pixels only if the bands' extremes require it.

    The extremes are compared one by one: as arrays of ten they take three times as long, and hold the GIL.
    """
    fills = FILLS if nodata is None else {*FILLS, nodata}
    candidates = [
        (band, fill)
        for name, band in optical.items()
        for fill in fills
        if math.isnan(low[name]) or low[name] <= fill <= high[name]
    ]
    # Sentinel-2 has 0 in all bands where it has no data.
    zeros = not any(low[name] > 0 or high[name] < 0 for name in optical)
    if not candidates and not zeros:
        return 0.0
    bands = [*optical.values()]
    missing = ~np.any(bands, axis=0) if zeros else np.zeros(bands[0].shape, bool)
    for band, fill in candidates:
        missing |= np.isnan(band) if math.isnan(fill) else band == fill
    return np.count_nonzero(missing) / missing.size
