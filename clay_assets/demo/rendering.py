"""What satellites see of a landscape on a date: the thirteen bands of a chip.

Here: the season, each cover's spectrum and backscatter, light and shade, speckle and noise. A pixel is a
mixture of covers, and so is its spectrum.
Not here: where the covers lie (see `cover`), and how pixels are written (see `chips`).
"""

import datetime
import math
from dataclasses import dataclass

import numpy as np

from clay_assets.demo.cover import Cover
from clay_assets.demo.noise import Floats, NoiseWindow
from clay_assets.demo.relief import Relief, ramp
from clay_model.spec import BANDS

SPECTRA: dict[str, tuple[float, ...]] = {
    # B02 B03 B04 B05 B06 B07 B08 B8A B11 B12 vh vv
    "deep water": (330, 310, 180, 130, 90, 80, 70, 60, 35, 25, 0.0007, 0.006),
    "shallow water": (520, 680, 500, 390, 220, 195, 165, 145, 60, 40, 0.0008, 0.006),
    "snow": (8900, 8900, 8800, 8700, 8500, 8300, 8100, 7900, 1000, 800, 0.004, 0.035),
    "rock": (640, 730, 800, 880, 950, 990, 1040, 1090, 1420, 1300, 0.020, 0.120),
    "gravel": (950, 1150, 1290, 1400, 1480, 1540, 1600, 1660, 1950, 1750, 0.008, 0.070),
    "leaf crop": (290, 640, 310, 950, 3200, 4200, 4450, 4550, 1900, 900, 0.022, 0.085),
    "blossom": (480, 1220, 1050, 1650, 3400, 4150, 4350, 4450, 2150, 1100, 0.034, 0.090),
    "straw": (880, 1250, 1640, 2000, 2400, 2650, 2850, 3000, 3800, 2900, 0.009, 0.050),
    "soil": (650, 880, 1150, 1400, 1600, 1750, 1900, 2050, 2700, 2300, 0.006, 0.055),
    "conifers": (180, 310, 200, 580, 1650, 2050, 2200, 2300, 1000, 460, 0.045, 0.170),
    "broadleaves": (230, 470, 260, 800, 2450, 3100, 3300, 3400, 1500, 680, 0.040, 0.150),
    "bare trees": (420, 560, 650, 950, 1500, 1750, 1900, 2050, 2100, 1400, 0.032, 0.120),
    "meadow": (330, 680, 430, 1050, 2800, 3500, 3700, 3850, 2050, 1050, 0.011, 0.058),
    "heath": (410, 600, 700, 1060, 1620, 1860, 2020, 2190, 2300, 1480, 0.013, 0.062),
}
"""For each cover: surface reflectance x 10,000 of the ten Sentinel-2 bands; vh and vv as linear power.

Typical values, chosen by eye and by what is known of each cover's spectrum: not measured.
"""

TABLE = np.array(list(SPECTRA.values()), np.float32).T
"""(12 bands, covers)."""

COARSE_BANDS = [BANDS.index(band) for band in ("B05", "B06", "B07", "B8A", "B11", "B12")]
"""Measured in 20 m pixels, so that two by two of a chip's are alike."""

LOOKS = 4.5
"""Independent samples averaged in a pixel of the radar: the fewer, the more speckle."""


@dataclass(frozen=True)
class Season:
    """What a date changes.

    Attributes:
        date: Day of acquisition.
        sun_azimuth: Degrees clockwise from north.
        sun_elevation: Degrees over the horizon.
        snow_line: Above it lies snow, metres.
        green: How green the meadows and broadleaved trees are, 0 to 1.
        crops: For each crop, all equally frequent: the parts of a field under leaves, blossom and straw. What
            is left is bare soil.
    """

    date: datetime.date
    sun_azimuth: float
    sun_elevation: float
    snow_line: float
    green: float
    crops: tuple[tuple[float, float, float], ...]


def render(relief: Relief, cover: Cover, noise: NoiseWindow, season: Season) -> Floats:
    """The thirteen bands of a piece of ground on a date.

    Args:
        relief: The shape of the ground; its sides are even numbers of pixels.
        cover: What covers it.
        noise: Over the same pixels.
        season: The date and what it changes.

    Returns:
        (13, height, width) in the order and units of `clay_model.spec.BANDS`.
    """
    shape = relief.height.shape
    random = noise.generator(f"sensor/{season.date}")
    seen = (TABLE @ _mixture(relief, cover, noise, season).reshape(len(SPECTRA), -1)).reshape(-1, *shape)
    pixels = np.empty((len(BANDS), *shape), np.float32)
    pixels[:10] = _reflectance(seen[:10], relief, cover, noise, season, random)
    speckle = random.standard_gamma(LOOKS, (2, *shape), np.float32) / np.float32(LOOKS)
    towards_radar = np.exp(np.clip(-1.6 * relief.rise_east, -1.2, 1.2))  # it looks from the east
    pixels[10:12] = seen[10:] * speckle * towards_radar
    pixels[12] = np.rint(relief.height * 8) / 8  # no elevation model knows millimetres, and these compress
    return pixels


def _reflectance(
    spectra: Floats,
    relief: Relief,
    cover: Cover,
    noise: NoiseWindow,
    season: Season,
    random: np.random.Generator,
) -> Floats:
    """The ten Sentinel-2 bands as delivered: lit, textured, noisy, whole numbers; (10, height, width)."""
    height, width = relief.height.shape
    rough = 0.02 + 0.05 * np.maximum(cover.forest, cover.rock) * (1 - cover.water)
    texture = 1 + rough * (
        noise.fractal("texture", (5, 2), 0.9) + 0.5 * random.standard_normal((height, width), np.float32)
    )
    seen = spectra * (_light(relief, season) * texture)
    seen += 10 * random.standard_normal(seen.shape, np.float32)
    coarse = seen[COARSE_BANDS].reshape(-1, height // 2, 2, width // 2, 2).mean((2, 4))
    seen[COARSE_BANDS] = coarse.repeat(2, 1).repeat(2, 2)
    return np.clip(np.rint(seen), 1, 20_000)


def _light(relief: Relief, season: Season) -> Floats:
    """Light on each slope, as a multiple of that on level ground; some of it comes from all of the sky."""
    azimuth, elevation = math.radians(season.sun_azimuth), math.radians(season.sun_elevation)
    uphill = math.sin(azimuth) * relief.rise_east + math.cos(azimuth) * relief.rise_north
    towards_sun = (1 - uphill / math.tan(elevation)) / np.sqrt(1 + relief.slope**2)
    light: Floats = (0.25 + 0.75 * np.clip(towards_sun, 0, 1.8)).astype(np.float32)
    return light


def _mixture(relief: Relief, cover: Cover, noise: NoiseWindow, season: Season) -> Floats:
    """Part of each cover in each pixel, (covers, height, width), in `SPECTRA`'s order; their sum is 1."""
    parts: dict[str, Floats] = {}
    bare = np.ones_like(relief.height)

    def lay(part: Floats) -> Floats:
        """Cover that part of what nothing covers yet."""
        nonlocal bare
        laid = bare * part
        bare = bare - laid
        return laid

    water = lay(cover.water)
    parts["deep water"] = water * cover.clearness
    parts["shallow water"] = water - parts["deep water"]
    drift = (
        50 * noise.fractal("drift", (50, 14, 5), 0.6) + 90 * relief.rise_north
    )  # it stays longer on northern slopes
    snowy = ramp(relief.height + drift, season.snow_line - 60, season.snow_line + 140)
    parts["snow"] = lay(snowy * ramp(relief.slope, 1.1, 0.6))
    parts["rock"] = lay(cover.rock)
    parts["gravel"] = lay(cover.gravel)

    fields = lay(cover.farmland)
    crops = np.array(season.crops, np.float32)
    kind = np.minimum((cover.crop * len(crops)).astype(np.intp), len(crops) - 1)
    leaf, blossom, straw = np.moveaxis(crops[kind], -1, 0) * (fields * (0.6 + 0.4 * cover.vigour))
    parts |= {"leaf crop": leaf, "blossom": blossom, "straw": straw, "soil": fields - leaf - blossom - straw}

    trees = lay(cover.forest)
    parts["conifers"] = trees * cover.conifers
    parts["broadleaves"] = (trees - parts["conifers"]) * season.green
    parts["bare trees"] = trees - parts["conifers"] - parts["broadleaves"]
    parts["meadow"] = bare * cover.lushness * season.green
    parts["heath"] = bare - parts["meadow"]
    return np.stack([parts[name] for name in SPECTRA])
