"""What a chip's pixels may say against it, and how many of them hold no data.

No pixel is ever changed: filling a gap would be an invention. Numbers that are held against: `limits`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.chips.limits import FILLS, LIMITS, OPTICAL
from clay_assets.chips.rejection import ChipRejected


def check_pixels(
    pixels: NDArray[Any],
    bands: Mapping[str, int],
    nodata: float | None,
    max_nodata: float,
) -> float:
    """Refuse pixels that cannot be embedded.

    The share of no data is looked at first, so that a chip that is mostly fill says so. A fill outside a
    band's range (-9,999, say) is refused however few pixels hold it: to the network it is a measurement. One
    inside (0) is embedded as it is, up to `max_nodata`.

    Args:
        pixels: (bands, rows, columns) as the file has them.
        bands: Name of each band that the network takes, with its place in the file.
        nodata: Value that the file declares as no data; None: it declares none.
        max_nodata: Highest share of pixels without data, 0 to 1.

    Returns:
        The share of pixels without data, 0 to 1 (see `Chip.nodata`).

    Raises:
        ChipRejected: With reason `nodata`, `nonfinite` or `range`, the first that holds.
    """
    with np.errstate(all="ignore"):  # bytes that are no numbers, and sums of huge ones, are refused below
        return _check_pixels(pixels, bands, nodata, max_nodata)


def _check_pixels(
    pixels: NDArray[Any], bands: Mapping[str, int], nodata: float | None, max_nodata: float
) -> float:
    low, high = extremes(pixels)
    optical = [place for band, place in bands.items() if band in OPTICAL]
    share = _nodata_share(pixels, optical, low, high, nodata)
    if share > max_nodata:
        raise ChipRejected(
            "nodata", f"has {share:.1%} of pixels without data, expected at most {max_nodata:.1%}"
        )
    unfinite = [band for band, place in bands.items() if not np.isfinite([low[place], high[place]]).all()]
    if unfinite:
        counts = [np.count_nonzero(~np.isfinite(pixels[bands[band]])) for band in unfinite]
        found = ", ".join(f"{count:,} in {band}" for band, count in zip(unfinite, counts, strict=True))
        raise ChipRejected("nonfinite", f"has pixels that are NaN or infinite, expected none: {found}")
    seen = {band: (low[place], high[place], *LIMITS[band]) for band, place in bands.items()}
    outside = [
        f"{band} from {least:g} to {most:g}, expected {lowest:g} to {highest:g}"
        for band, (least, most, lowest, highest) in seen.items()
        if least < lowest or most > highest
    ]
    if outside:
        found = ", ".join(outside)
        area = pixels[0].size
        fills = f"; {round(share * area):,} of {area:,} pixels hold a no-data value" if share else ""
        raise ChipRejected("range", f"has pixels that are no measurement: {found}{fills}")
    return share


def extremes(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Lowest and highest value of each band; NaN of a band that holds one.

    Args:
        pixels: (bands, rows, columns), of any memory layout.

    Returns:
        Two arrays (bands,) of the pixels' type.
    """
    # Bands that lie pixel by pixel would be compared in steps: 88 ms. Half rows, which the first cache holds
    # with their result, take 0.7 ms.
    if pixels.transpose(1, 2, 0).flags.c_contiguous:
        rows = pixels.transpose(1, 2, 0).reshape(2 * pixels.shape[1], -1)
        low, high = (ends.reshape(-1, len(pixels)) for ends in (rows.min(axis=0), rows.max(axis=0)))
        return low.min(axis=0), high.max(axis=0)
    return pixels.min(axis=(1, 2)), pixels.max(axis=(1, 2))


def _nodata_share(
    pixels: NDArray[Any], optical: list[int], low: NDArray[Any], high: NDArray[Any], nodata: float | None
) -> float:
    """Share of pixels without data; the pixels are read again only where the extremes allow for some."""
    low, high = low[optical], high[optical]
    missing = np.zeros(pixels.shape[1:], bool)
    for value in {*FILLS} | ({nodata} if nodata is not None else set()):
        unknown = np.isnan(low)
        possible = unknown if np.isnan(value) else unknown | ((low <= value) & (value <= high))
        for index in np.flatnonzero(possible):
            band = pixels[optical[index]]
            missing |= np.isnan(band) if np.isnan(value) else band == value
    if not ((low > 0) | (high < 0)).any():  # Sentinel-2 has 0 in all bands where it has no data
        missing |= ~pixels[optical].any(axis=0)
    return np.count_nonzero(missing) / missing.size
