import datetime
import math
from collections.abc import Callable

import numpy as np
import pytest

from clay_assets_tests.golden import REAL_CHIPS, RECIPE_CHIPS, GoldenChip
from clay_model.v0.encodings import (
    encode_dates,
    encode_places,
    group_encoding,
    position_encoding,
    token_encoding,
)

GOLDEN = pytest.mark.parametrize("chip", RECIPE_CHIPS + REAL_CHIPS, ids=lambda chip: chip.name)


@GOLDEN
def test_place_matches_the_reference(chip: GoldenChip) -> None:
    assert encode_places([chip.lonlat])[0].tolist() == pytest.approx(chip.place, abs=1e-6)


@GOLDEN
def test_date_matches_the_reference(chip: GoldenChip) -> None:
    assert encode_dates([chip.date])[0].tolist() == pytest.approx(chip.timestep, abs=1e-6)


def test_places_and_dates_keep_their_order_in_a_batch() -> None:
    chips = RECIPE_CHIPS + REAL_CHIPS
    places = encode_places([chip.lonlat for chip in chips])
    dates = encode_dates([chip.date for chip in chips])
    assert np.allclose(places, [chip.place for chip in chips], atol=1e-6)
    assert np.allclose(dates, [chip.timestep for chip in chips], atol=1e-6)


@pytest.mark.parametrize("lonlat", [(180, 90), (-180, -90), (0, 0)])
def test_place_at_the_edge_of_the_map_is_accepted(lonlat: tuple[float, float]) -> None:
    assert encode_places([lonlat]).isfinite().all()


@pytest.mark.parametrize(
    ("lonlat", "message"),
    [
        ([(0, 0), (180.1, 0)], r"lonlat\[1\] has longitude 180.1, expected -180 to 180 degrees"),
        ([(-200, 0)], r"longitude -200.0, expected -180 to 180"),
        ([(69.3, 118.4)], r"latitude 118.4, expected -90 to 90 degrees \(longitude comes first\)"),
        ([(600_000, 7_700_040)], "longitude 600000.0"),
        ([(float("nan"), 0)], "longitude nan"),
        ([(0, float("inf"))], "latitude inf"),
        ((0.0, 0.0), r"shape \(2,\), expected \(B, 2\)"),
        ([(0, 0, 0)], r"shape \(1, 3\), expected \(B, 2\)"),
    ],
    ids=["beyond 180", "beyond -180", "latitude first", "metres", "NaN", "infinite", "no batch", "three"],
)
def test_place_off_the_map_is_refused(lonlat: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_places(lonlat)  # type: ignore[arg-type]


def test_time_of_day_is_ignored() -> None:
    noon = datetime.datetime(2020, 6, 15, 12, 30, tzinfo=datetime.UTC)
    assert encode_dates([noon]).equal(encode_dates([datetime.date(2020, 6, 15)]))


def test_no_dates_give_no_rows() -> None:
    assert encode_dates([]).shape == (0, 3)


class NotATime(datetime.datetime):
    """Like pandas' NaT: a subclass of datetime, unequal to itself."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True


@pytest.mark.parametrize(
    "wrong",
    ["2020-06-15", 20200615, None, np.datetime64("2020-06-15"), NotATime(2020, 1, 1)],
    ids=["text", "number", "nothing", "NumPy's date", "NaT"],
)
def test_other_types_than_date_are_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"dates\[1\] is .*, expected a datetime.date"):
        encode_dates([datetime.date(2020, 6, 15), wrong])  # type: ignore[list-item]


def waves(value: int, frequencies: int, *functions: Callable[[float], float]) -> list[float]:
    """The published formula, one number at a time: each function over all frequencies."""
    return [f(value / 10_000 ** (i / (frequencies - 1))) for f in functions for i in range(frequencies)]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 15), (15, 0), (3, 11)])
def test_position_encoding_is_sin_x_cos_x_sin_y_cos_y(row: int, column: int) -> None:
    expected = waves(column, 96, math.sin, math.cos) + waves(row, 96, math.sin, math.cos)
    assert position_encoding(384)[16 * row + column].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("group", range(6))
def test_group_encoding_is_sine_then_cosine(group: int) -> None:
    assert group_encoding(384)[group].tolist() == pytest.approx(
        waves(group, 192, math.sin, math.cos), abs=1e-6
    )


def test_token_encoding_is_half_place_in_the_chip_and_half_band_group() -> None:
    tokens = token_encoding(256)
    assert tokens.shape == (6, 256, 256)
    for group, number in ((0, 0), (2, 17), (5, 255)):
        assert tokens[group, number, :128].equal(position_encoding(128)[number])
        assert tokens[group, number, 128:].equal(group_encoding(128)[group])


def test_no_two_tokens_share_an_encoding() -> None:
    assert len(token_encoding(256).flatten(0, 1).unique(dim=0)) == 6 * 256
