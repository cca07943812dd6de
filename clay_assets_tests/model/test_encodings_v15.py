import datetime
import math

import numpy as np
import pytest
import torch

from clay_model.sincos import encode_values
from clay_model.v15.encodings import (
    encode_places,
    encode_times,
    overpass,
    position_encoding,
    with_time_of_day,
)

UTC = datetime.UTC
DAY = datetime.date(2021, 7, 14)
NOON = datetime.datetime(2021, 7, 14, 12)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 31), (31, 0), (3, 11)])
def test_position_encoding_has_nearly_one_frequency(row: int, column: int) -> None:
    count = 94  # a quarter of 384 - 8
    frequencies = [10 / 10_000 ** (2 * (i / (count - 1)) / 376) for i in range(count)]
    assert frequencies[-1] > 9.5  # and not 10 / 10,000
    expected = [f(place * w) for place in (column, row) for f in (math.sin, math.cos) for w in frequencies]
    # Angles of 310 in float32 are good to 3e-5; the reference's are rounded in the same way.
    assert position_encoding(32, 376)[32 * row + column].tolist() == pytest.approx(expected, abs=1e-4)


def test_position_encoding_of_a_small_window_is_a_corner_of_that_of_a_large_window() -> None:
    large = position_encoding(32, 56).view(32, 32, 56)
    assert position_encoding(16, 56).view(16, 16, 56).equal(large[:16, :16])


def test_wavelengths_are_encoded_as_sine_then_cosine() -> None:
    angles = [0.665 / 10_000 ** (i / 63) for i in range(64)]
    expected = [f(angle) for f in (math.sin, math.cos) for angle in angles]
    assert encode_values(torch.tensor([0.493, 0.665]), 128)[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_place_is_sine_and_cosine_of_latitude_then_of_longitude() -> None:
    expected = [math.sin(math.radians(52.3)), math.cos(math.radians(52.3))]
    expected += [math.sin(math.radians(4.9)), math.cos(math.radians(4.9))]
    assert encode_places([(0, 0), (4.9, 52.3)])[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_both_sides_of_the_antimeridian_have_the_same_encoding() -> None:
    east, west = encode_places([(180, 10), (-180, 10)])
    assert east.tolist() == pytest.approx(west.tolist(), abs=1e-6)


@pytest.mark.parametrize("lonlat", [[(0, 90.1)], [(180.1, 0)], [(math.nan, 0)], (0.0, 0.0)])
def test_place_off_the_map_is_refused(lonlat: object) -> None:
    with pytest.raises(ValueError, match="lonlat"):
        encode_places(lonlat)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("moment", "week", "hour"),
    [
        (datetime.datetime(2021, 7, 14, 10), 28, 10),
        (datetime.datetime(2021, 7, 14, 10, 59, 59), 28, 10),
        (datetime.datetime(2021, 1, 1), 53, 0),
        (datetime.datetime(2019, 12, 31, 23), 1, 23),
    ],
    ids=["on the hour", "just before the next", "in the last year's week 53", "in the next year's week 1"],
)
def test_time_is_the_iso_week_and_the_whole_hour(moment: datetime.datetime, week: int, hour: int) -> None:
    angles = (week * 2 * math.pi / 52, hour * 2 * math.pi / 24)
    expected = [f(angle) for angle in angles for f in (math.sin, math.cos)]
    assert encode_times([moment])[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_time_of_another_zone_is_converted_to_utc() -> None:
    chile = datetime.timezone(datetime.timedelta(hours=-4))
    late = datetime.datetime(
        2021, 7, 18, 22, tzinfo=chile
    )  # a Sunday there, and in UTC the next week's Monday
    assert encode_times([late]).equal(encode_times([datetime.datetime(2021, 7, 19, 2, tzinfo=UTC)]))
    assert encode_times([late]).equal(encode_times([datetime.datetime(2021, 7, 19, 2)]))


def test_no_times_give_no_rows() -> None:
    assert encode_times([]).shape == (0, 4)
    assert encode_places(np.empty((0, 2))).shape == (0, 4)


@pytest.mark.parametrize("wrong", [DAY, "2021-07-14T10:00", None])
def test_other_types_than_datetime_are_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"times\[1\] is .*, expected a datetime.datetime in UTC"):
        encode_times([NOON, wrong])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("longitude", "hour", "minute"),
    [(0, 10, 30), (15, 9, 30), (-72.5, 15, 20), (150, 0, 30), (165, 23, 30), (180, 22, 30), (-180, 22, 30)],
)
def test_overpass_is_at_half_past_ten_local_solar_time_of_the_utc_date(
    longitude: float, hour: int, minute: int
) -> None:
    assert overpass(DAY, longitude) == datetime.datetime(2021, 7, 14, hour, minute, tzinfo=UTC)


def test_only_a_date_without_time_gets_the_time_of_the_overpass() -> None:
    midnight = datetime.datetime(2021, 7, 14)
    places = [(-72.5, 0)] * 3
    assert with_time_of_day([DAY, NOON, midnight], places) == [overpass(DAY, -72.5), NOON, midnight]


def test_dates_without_their_places_are_refused() -> None:
    with pytest.raises(ValueError, match="lonlat has 1 rows for 2 dates, expected one row a date"):
        with_time_of_day([DAY, DAY], [(0, 0)])
