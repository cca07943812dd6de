"""Fill values and ranges, compared with rasterio's masks, real chips and the network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rasterio.io import MemoryFile

from clay_assets.chips import MAX_NODATA, ChipRejected, read_chip
from clay_assets.chips.pixels import FILLS, LIMITS, OPTICAL, extremes
from clay_assets_tests.checkpoints import lightning_checkpoint, write_checkpoint
from clay_assets_tests.geotiffs import (
    LAYOUTS,
    SWAPPED,
    chip_bytes,
    chip_name,
    chip_pixels,
    filled_pixels,
    good_chip,
)
from clay_assets_tests.golden import REAL_CHIPS
from clay_model import load_encoder
from clay_model.spec import BANDS, V0, V15


def masked_share(data: bytes) -> float:
    """The oracle: share of the pixels that rasterio masks in some optical band."""
    with MemoryFile(data) as file, file.open(driver="GTiff") as dataset:
        masks = dataset.read_masks([*range(1, len(OPTICAL) + 1)])
        return float((masks == 0).any(axis=0).mean())


@pytest.mark.parametrize("layout", ["bucket layout", "bands apart in strips", "LZW"])
@pytest.mark.parametrize(
    ("dtype", "nodata"), [("float32", 0), ("uint16", 7), ("int16", -999), ("float32", 0.1)]
)
def test_the_share_of_declared_no_data_equals_rasterios_mask(layout: str, dtype: str, nodata: float) -> None:
    pixels = chip_pixels(dtype)
    pixels[3, 10:40, 5:300] = pixels[7, 30:90] = nodata
    data = chip_bytes(pixels, layout=layout, nodata=nodata)
    chip = read_chip(data, chip_name())
    assert chip.nodata == masked_share(data) > 0.1
    assert np.array_equal(chip.pixels, pixels.astype(np.float32))  # embedded unchanged


def test_undeclared_fill_is_counted_where_all_optical_bands_have_it() -> None:
    pixels = filled_pixels(0, rows=128)
    assert read_chip(chip_bytes(pixels), chip_name()).nodata == 0.25
    pixels[4, :64] = 1
    assert read_chip(chip_bytes(pixels), chip_name()).nodata == 0.125


def test_a_height_or_a_power_of_0_is_data() -> None:
    pixels = chip_pixels() + 1
    pixels[10:] = 0
    assert read_chip(chip_bytes(pixels, nodata=0), chip_name()).nodata == 0


@pytest.mark.parametrize("value", FILLS)
def test_the_share_of_fill_is_checked_before_the_range(value: float) -> None:
    data = chip_bytes(filled_pixels(value, rows=256))
    with pytest.raises(
        ChipRejected, match=r"50.0% of pixels without data, expected at most 49.0%"
    ) as refusal:
        read_chip(data, chip_name(), max_nodata=0.49)
    assert refusal.value.reason == "nodata"
    with pytest.raises(
        ChipRejected, match=r"B02 from .*; 131,072 of 262,144 pixels hold a no-data"
    ) as refusal:
        read_chip(data, chip_name(), max_nodata=0.5)
    assert refusal.value.reason == "range"


def test_the_limit_of_no_data_is_configurable() -> None:
    half = chip_bytes(filled_pixels(0, rows=256))
    assert read_chip(half, chip_name(), max_nodata=0.5).nodata == 0.5
    for limit in (0.499, MAX_NODATA):
        with pytest.raises(ChipRejected, match=r"50.0% of pixels without data") as refusal:
            read_chip(half, chip_name(), max_nodata=limit)
        assert refusal.value.reason == "nodata"


def test_bands_have_their_own_limits_in_any_order() -> None:
    pixels = chip_pixels()
    pixels[SWAPPED.index("vv"), 5, 5] = 999_999  # valid as power, not as reflectance or height
    assert read_chip(chip_bytes(pixels, bands=SWAPPED), chip_name()).pixels.max() == 999_999
    pixels[SWAPPED.index("dem"), 5, 5] = 10_001
    with pytest.raises(
        ChipRejected, match=r"not measurements: dem from 24 to 10001, expected -1000 to 10000$"
    ):
        read_chip(chip_bytes(pixels, bands=SWAPPED), chip_name())


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("end", [0, 1])
def test_the_limits_are_inclusive(band: str, end: int) -> None:
    pixels, index = chip_pixels(), BANDS.index(band)
    pixels[index, 511, 511] = LIMITS[band][end]
    assert np.array_equal(read_chip(chip_bytes(pixels), chip_name()).pixels, pixels)
    pixels[index, 511, 511] = np.nextafter(np.float32(LIMITS[band][end]), np.float32([-np.inf, np.inf][end]))
    with pytest.raises(ChipRejected, match=f"not measurements: {band} from") as refusal:
        read_chip(chip_bytes(pixels), chip_name())
    assert refusal.value.reason == "range"


def test_real_chips_and_training_statistics_are_well_within_the_limits() -> None:
    assert set(V15.bands) < set(LIMITS)
    for (lowest, highest), mean, deviation in zip(
        (LIMITS[band] for band in BANDS), V0.mean, V0.deviation, strict=True
    ):
        assert highest > mean + 10 * deviation
        assert lowest < mean - deviation
    for case in REAL_CHIPS:
        pixels = case.pixels()
        chip = read_chip(chip_bytes(pixels, date=str(case.date)), case.file_name)
        assert chip.nodata == 0
        assert np.array_equal(chip.pixels, pixels)


def test_pixels_at_the_limits_give_finite_vectors(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "clay.ckpt", lightning_checkpoint("tiny"))
    chip = read_chip(good_chip(), chip_name())
    rng = np.random.default_rng(0)
    low, high = np.array([LIMITS[band] for band in BANDS], np.float32).T[:, :, None, None]
    pixels = np.where(rng.random((13, 512, 512)) < 0.5, low, high)
    pixels[:, :, 256:] = high
    for precision in ("fp32", "bf16"):
        embedder = load_encoder(path, "cpu", precision)
        batch = torch.from_numpy(pixels[np.newaxis])
        places, dates = embedder.context([chip.windows[0].lonlat], [chip.date])
        assert embedder.encode(batch, places, dates, "group").isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_extremes_are_per_band_in_every_layout(layout: str) -> None:
    pixels = np.random.default_rng(2).random((13, 512, 512), dtype=np.float32)
    read = read_chip(chip_bytes(pixels, layout=layout, zlevel=1), chip_name()).pixels
    low, high = extremes(read)
    assert np.array_equal(low, pixels.reshape(13, -1).min(axis=1))
    assert np.array_equal(high, pixels.reshape(13, -1).max(axis=1))
