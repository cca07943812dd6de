"""Chips for Clay v1.5: sizes, bands by name or position, locations of windows, acquisition time."""

import datetime
from itertools import product

import numpy as np
import pyproj
import pytest
import shapely

from clay_assets.chips import ChipRejected, read_chip
from clay_assets_tests.geotiffs import SWAPPED, chip_bytes, chip_name, chip_pixels
from clay_model.spec import BANDS, V0, V15

WEST, NORTH = 600_000, 7_700_040
"""Upper left corner of the chips, metres of EPSG:32627."""

NIR_FIRST = ("B08", *(band for band in V15.bands if band != "B08"))


def corners(row: int, column: int) -> list[tuple[float, float]]:
    """The oracle: corners of a window of 256 x 256 pixels by pyproj, in the order of `shapely.box`."""
    to_degrees = pyproj.Transformer.from_crs("EPSG:32627", "OGC:CRS84", always_xy=True)
    west, north = WEST + 2_560 * column, NORTH - 2_560 * row
    box = shapely.box(west, north - 2_560, west + 2_560, north)
    return [to_degrees.transform(*corner) for corner in box.exterior.coords]


def test_a_chip_of_512_pixels_has_four_windows_row_by_row_with_their_own_locations() -> None:
    chip = read_chip(chip_bytes(), chip_name(), spec=V15)

    assert len(chip.windows) == 4
    for place, (row, column) in zip(chip.windows, product((0, 1), (0, 1)), strict=True):
        expected = corners(row, column)
        assert np.allclose(shapely.get_coordinates(shapely.from_wkb(place.footprint)), expected, atol=1e-9)
        to_degrees = pyproj.Transformer.from_crs("EPSG:32627", "OGC:CRS84", always_xy=True)
        centre = to_degrees.transform(WEST + 2_560 * (column + 0.5), NORTH - 2_560 * (row + 0.5))
        assert place.lonlat == pytest.approx(centre, abs=1e-9)


@pytest.mark.parametrize(
    ("count", "names"),
    [(10, ()), (10, V15.bands), (10, NIR_FIRST), (13, ()), (13, BANDS), (13, SWAPPED[::-1])],
    ids=["10", "10 named", "10 in another order", "13", "13 named", "13 in another order"],
)
def test_bands_are_taken_by_name_or_position_from_files_of_10_and_13_bands(
    count: int, names: tuple[str, ...]
) -> None:
    pixels = chip_pixels(size=256, bands=count)

    chip = read_chip(chip_bytes(pixels, bands=names), chip_name(), spec=V15)

    expected = pixels[[names.index(band) for band in V15.bands]] if names else pixels[:10]
    assert np.array_equal(chip.pixels, expected)
    assert len(chip.windows) == 1


def test_bands_that_the_model_does_not_use_are_not_checked() -> None:
    pixels = chip_pixels(size=256)
    pixels[BANDS.index("dem")] = np.nan
    pixels[BANDS.index("vv")] = -12.5
    assert read_chip(chip_bytes(pixels), chip_name(), spec=V15).nodata == 0
    pixels[BANDS.index("B03"), 0, 0] = np.nan
    with pytest.raises(ChipRejected, match="1 in B03"):
        read_chip(chip_bytes(pixels), chip_name(), spec=V15)


@pytest.mark.parametrize(
    ("size", "bands", "reason", "phrase"),
    [
        (384, 10, "size", "384 x 384 pixels, expected 256 x 256 or 512 x 512"),
        (1024, 10, "size", "1024 x 1024 pixels, expected 256 x 256 or 512 x 512"),
        (256, 12, "bands", "12 bands, expected 10 or 13"),
    ],
)
def test_other_sizes_and_band_counts_are_refused(size: int, bands: int, reason: str, phrase: str) -> None:
    with pytest.raises(ChipRejected, match=phrase) as refusal:
        read_chip(chip_bytes(chip_pixels("uint8", size=size, bands=bands)), chip_name(), spec=V15)
    assert refusal.value.reason == reason


def test_a_missing_band_of_ten_is_named() -> None:
    names = ("B01", *V15.bands[1:])
    with pytest.raises(ChipRejected, match="no band named B02 among") as refusal:
        read_chip(chip_bytes(chip_pixels(size=256, bands=10), bands=names), chip_name(), spec=V15)
    assert refusal.value.reason == "bands"


@pytest.mark.parametrize(
    ("tag", "hour", "minute"),
    [
        ("2020-06-15T12:34:56Z", 12, 34),
        ("2020-06-15T12:34:56", 12, 34),
        ("2020-06-15T12:34:56.789+00:00", 12, 34),
        (" 2020-06-15 14:34:56+02:00", 12, 34),
        ("20200615T123456Z", 12, 34),
        ("2020-06-16T01:00:00+02:00", 23, 0),
        (None, None, None),
    ],
)
def test_the_time_of_acquisition_is_the_tag_in_utc(
    tag: str | None, hour: int | None, minute: int | None
) -> None:
    time = read_chip(chip_bytes(chip_pixels(size=256), time=tag), chip_name(), spec=V15).time
    assert (time.hour, time.minute, time.tzinfo) == (hour, minute, datetime.UTC) if time else tag is None


@pytest.mark.parametrize(
    "tag",
    ["noon", "12:34:56", "2020-06-16T12:00:00Z", "2020-06-15T23:30:00-02:00", "2020-06-15T25:00:00"],
)
def test_an_invalid_time_or_one_of_another_day_is_refused(tag: str) -> None:
    with pytest.raises(ChipRejected, match="as its tag `datetime`, expected") as refusal:
        read_chip(chip_bytes(chip_pixels(size=256), time=tag), chip_name(), spec=V15)
    assert refusal.value.reason == "date"


def test_the_time_tag_is_ignored_for_a_model_without_time_of_day() -> None:
    assert read_chip(chip_bytes(time="noon"), chip_name(), spec=V0).time is None
