import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from clay_assets_tests.recipe import chip_pixels
from clay_model import Embedder, Level, load_encoder

Pixels = NDArray[np.float32]
LONLAT = [(-18.39, 69.37), (-17.33, 68.89)]
DATES = [datetime.date(2020, 6, 15), datetime.date(2020, 2, 29)]


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """Two chips; no test may change them."""
    made = np.stack([chip_pixels(name) for name in ("iceland", "leap")])
    made.setflags(write=False)
    return made


@pytest.fixture(scope="module")
def means(tiny_encoder: Embedder, pixels: Pixels) -> Pixels:
    return tiny_encoder.embed(pixels, lonlat=LONLAT, dates=DATES)


def distance(one: Pixels, other: Pixels) -> float:
    """Largest relative L2 distance of any one vector."""
    return float((np.linalg.norm(one - other, axis=-1) / np.linalg.norm(other, axis=-1)).max())


@pytest.mark.parametrize(
    ("level", "shape", "reduced"),
    [("mean", (256,), ()), ("patch", (16, 16, 256), (1, 2)), ("group", (6, 16, 16, 256), (1, 2, 3))],
)
def test_level_has_its_shape_and_averages_to_the_mean(
    tiny_encoder: Embedder,
    pixels: Pixels,
    means: Pixels,
    level: Level,
    shape: tuple[int, ...],
    reduced: tuple[int, ...],
) -> None:
    vectors = tiny_encoder.embed(pixels, lonlat=LONLAT, dates=DATES, level=level)
    assert vectors.shape == (2, *shape)
    assert vectors.dtype == np.float32
    assert distance(vectors.mean(axis=reduced) if reduced else vectors, means) < 1e-5


def test_chip_has_the_same_vector_alone_as_in_a_batch(
    tiny_encoder: Embedder, pixels: Pixels, means: Pixels
) -> None:
    alone = tiny_encoder.embed(pixels[1:], lonlat=LONLAT[1:], dates=DATES[1:])
    assert distance(alone, means[1:]) < 1e-5


@pytest.mark.parametrize("band", range(13))
def test_every_band_changes_the_vector(
    tiny_encoder: Embedder, pixels: Pixels, means: Pixels, band: int
) -> None:
    changed = pixels[:1].copy()
    changed[:, band] *= 1.5
    vector = tiny_encoder.embed(changed, lonlat=LONLAT[:1], dates=DATES[:1])
    assert distance(vector, means[:1]) > 1e-4


@pytest.mark.parametrize(
    ("lonlat", "date"),
    [((18.39, 69.37), DATES[0]), ((-18.39, -69.37), DATES[0]), (LONLAT[0], datetime.date(2021, 6, 15))],
    ids=["longitude", "latitude", "date"],
)
def test_place_and_date_change_the_vector(
    tiny_encoder: Embedder, pixels: Pixels, means: Pixels, lonlat: tuple[float, float], date: datetime.date
) -> None:
    vector = tiny_encoder.embed(pixels[:1], lonlat=[lonlat], dates=[date])
    assert distance(vector, means[:1]) > 1e-4


def as_given(kind: str, pixels: Pixels) -> NDArray[np.generic] | Tensor:
    """The same chips in another container or number type."""
    if kind == "tensor":
        return torch.tensor(pixels)
    if kind == "float64":
        return pixels.astype(np.float64)
    if kind == "big-endian":
        return pixels.astype(">f4")
    if kind == "flipped twice":
        return pixels[:, ::-1].copy()[:, ::-1]
    if kind == "bands last":
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["tensor", "float64", "big-endian", "flipped twice", "bands last"])
@pytest.mark.filterwarnings("error")
def test_pixels_are_accepted_in_other_containers(
    tiny_encoder: Embedder, pixels: Pixels, means: Pixels, kind: str
) -> None:
    vectors = tiny_encoder.embed(as_given(kind, pixels), lonlat=LONLAT, dates=DATES)
    assert distance(vectors, means) < 1e-6


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float16"])
def test_pixels_of_another_type_give_the_vectors_of_float32(
    tiny_encoder: Embedder, pixels: Pixels, dtype: str
) -> None:
    given = pixels[:1].clip(0, 255).astype(dtype)
    got = tiny_encoder.embed(given, lonlat=LONLAT[:1], dates=DATES[:1])
    expected = tiny_encoder.embed(given.astype(np.float32), lonlat=LONLAT[:1], dates=DATES[:1])
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_arguments_are_not_changed(tiny_checkpoint: Path, pixels: Pixels, precision: str) -> None:
    given, places = torch.tensor(pixels[:1]), np.array(LONLAT[:1])
    load_encoder(tiny_checkpoint, "cpu", precision).embed(given, lonlat=places, dates=DATES[:1])
    assert np.array_equal(given, pixels[:1])
    assert np.array_equal(places, LONLAT[:1])


def test_returned_vectors_can_be_modified(tiny_encoder: Embedder, pixels: Pixels, means: Pixels) -> None:
    vectors = tiny_encoder.embed(pixels, lonlat=LONLAT, dates=DATES)
    vectors[:] = 0
    assert distance(tiny_encoder.embed(pixels, lonlat=LONLAT, dates=DATES), means) < 1e-6


@pytest.mark.parametrize("level", ["mean", "patch", "group"])
def test_no_chips_give_no_vectors(tiny_encoder: Embedder, level: Level) -> None:
    vectors = tiny_encoder.embed(np.empty((0, 13, 512, 512)), lonlat=np.empty((0, 2)), dates=[], level=level)
    assert vectors.shape[0] == 0
    assert vectors.ndim == {"mean": 2, "patch": 4, "group": 5}[level]
    assert vectors.dtype == np.float32


@pytest.mark.parametrize(
    "shape",
    [(13, 512, 512), (1, 12, 512, 512), (1, 13, 256, 256), (1, 512, 512, 13), (1, 13, 512, 511), ()],
    ids=["no batch", "12 bands", "256 pixels", "bands last", "a column short", "a number"],
)
@pytest.mark.parametrize("kind", [np.zeros, torch.zeros], ids=["array", "tensor"])
def test_pixels_of_another_shape_are_refused(
    tiny_encoder: Embedder, shape: tuple[int, ...], kind: type
) -> None:
    with pytest.raises(ValueError, match=r"pixels have shape .*, expected \(B, 13, 512, 512\).*B02 B03"):
        tiny_encoder.embed(kind(shape), lonlat=LONLAT[:1], dates=DATES[:1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused_with_their_band_and_chip(
    tiny_encoder: Embedder, pixels: Pixels, value: float
) -> None:
    wrong = pixels.copy()
    wrong[1, 11, 5, :3] = value
    with pytest.raises(ValueError, match="3 pixels are not finite, the first in band vv of chip 1"):
        tiny_encoder.embed(wrong, lonlat=LONLAT, dates=DATES)


@pytest.mark.filterwarnings("ignore:overflow")
def test_pixels_that_float32_cannot_hold_are_refused(tiny_encoder: Embedder, pixels: Pixels) -> None:
    wrong = pixels[:1].astype(np.float64)
    wrong[0, 0, 0, 0] = 1e300
    with pytest.raises(ValueError, match="1 pixels are not finite, the first in band B02 of chip 0"):
        tiny_encoder.embed(wrong, lonlat=LONLAT[:1], dates=DATES[:1])


@pytest.mark.parametrize(
    ("wrong", "dtype"),
    [
        (np.zeros((1, 13, 512, 512), np.complex64), "complex64"),
        (torch.zeros((1, 13, 512, 512), dtype=torch.complex64), "torch.complex64"),
        (np.full((1, 13, 1, 1), None), "object"),
        (np.full((1, 13, 1, 1), "12"), "<U2"),
    ],
    ids=["complex array", "complex tensor", "objects", "text"],
)
def test_pixels_that_are_not_real_numbers_are_refused(
    tiny_encoder: Embedder, wrong: NDArray[np.generic] | Tensor, dtype: str
) -> None:
    with pytest.raises(TypeError, match=f"pixels are {dtype}, expected real numbers"):
        tiny_encoder.embed(wrong, lonlat=LONLAT[:1], dates=DATES[:1])


@pytest.mark.parametrize(
    ("lonlat", "dates", "message"),
    [
        (LONLAT[:1], DATES, "lonlat has 1 rows for 2 chips"),
        ([*LONLAT, LONLAT[0]], DATES, "lonlat has 3 rows for 2 chips"),
        (LONLAT, DATES[:1], "dates has 1 rows for 2 chips"),
        (LONLAT, [], "dates has 0 rows for 2 chips"),
        ([(0, 0), (200, 0)], DATES, r"lonlat\[1\] has longitude 200.0, expected -180 to 180"),
    ],
    ids=["a place short", "a place too many", "a date short", "no dates", "off the map"],
)
def test_places_and_dates_that_do_not_fit_are_refused(
    tiny_encoder: Embedder,
    pixels: Pixels,
    lonlat: list[tuple[float, float]],
    dates: list[datetime.date],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_encoder.embed(pixels, lonlat=lonlat, dates=dates)


def test_unknown_level_is_refused_with_the_known_ones(tiny_encoder: Embedder, pixels: Pixels) -> None:
    with pytest.raises(ValueError, match="level is 'median', expected one of mean, patch, group"):
        tiny_encoder.embed(pixels, lonlat=LONLAT, dates=DATES, level="median")  # type: ignore[arg-type]


def test_encoder_describes_itself(tiny_checkpoint: Path) -> None:
    encoder = load_encoder(tiny_checkpoint, device="cpu", precision="bf16")
    assert encoder.model_size == "tiny"
    assert encoder.precision == "bf16"
    assert encoder.device == torch.device("cpu")
    assert encoder.dimensions.dim == 256
    assert not encoder.untrained


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [("tpu", "fp32", "device is 'tpu'"), ("cpu", "fp16", "precision is 'fp16'")],
)
def test_wrong_setting_is_refused_before_the_checkpoint_is_read(
    tmp_path: Path, device: str, precision: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_encoder(tmp_path / "no such file", device, precision)
