import datetime

import numpy as np
import pytest
import torch

from clay_assets_tests.model.test_embed_v0 import LONLAT, Pixels, distance
from clay_assets_tests.recipe import chip_pixels
from clay_model import V15, Embedder
from clay_model.v15.encodings import overpass

TIMES = [datetime.datetime(2020, 6, 15, 12), datetime.datetime(2020, 2, 29, 13)]


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """Two windows of 128 x 128; no test may change them."""
    made = np.stack([chip_pixels(name, 128)[:10] for name in ("iceland", "leap")])
    made.setflags(write=False)
    return made


@pytest.fixture(scope="module")
def tokens(v15_encoder: Embedder, pixels: Pixels) -> Pixels:
    return v15_encoder.embed(pixels, lonlat=LONLAT, dates=TIMES)


def test_encoder_describes_itself(v15_encoder: Embedder) -> None:
    assert v15_encoder.spec is V15
    assert v15_encoder.model_name == "clay-v1.5-small"
    assert v15_encoder.dimensions == V15.sizes["small"]


def test_class_token_is_the_default(v15_encoder: Embedder, pixels: Pixels, tokens: Pixels) -> None:
    assert tokens.shape == (2, 384)
    assert np.array_equal(v15_encoder.embed(pixels, lonlat=LONLAT, dates=TIMES, level="cls"), tokens)


@pytest.mark.parametrize("side", [8, 128, 256, 264])
def test_patches_of_a_window_of_any_size_average_to_its_mean(v15_encoder: Embedder, side: int) -> None:
    window = np.resize(chip_pixels("iceland", 264)[:10], (10, 264, 264))[None, :, :side, :side]
    mean, patch = (
        v15_encoder.embed(window, lonlat=LONLAT[:1], dates=TIMES[:1], level=level)
        for level in ("mean", "patch")
    )
    assert patch.shape == (1, side // 8, side // 8, 384)
    assert patch.dtype == np.float32
    assert distance(patch.mean(axis=(1, 2)), mean) < 1e-5


@pytest.mark.parametrize("band", range(10))
def test_every_band_changes_the_vector(
    v15_encoder: Embedder, pixels: Pixels, tokens: Pixels, band: int
) -> None:
    changed = pixels[:1].copy()
    changed[:, band] *= 1.5
    assert distance(v15_encoder.embed(changed, lonlat=LONLAT[:1], dates=TIMES[:1]), tokens[:1]) > 1e-4


@pytest.mark.parametrize(
    ("lonlat", "time"),
    [
        ((18.39, 69.37), TIMES[0]),
        ((-18.39, -69.37), TIMES[0]),
        (LONLAT[0], TIMES[0] + datetime.timedelta(hours=1)),
        (LONLAT[0], TIMES[0] + datetime.timedelta(days=7)),
    ],
    ids=["longitude", "latitude", "hour", "week"],
)
def test_place_and_time_change_the_vector(
    v15_encoder: Embedder,
    pixels: Pixels,
    tokens: Pixels,
    lonlat: tuple[float, float],
    time: datetime.datetime,
) -> None:
    assert distance(v15_encoder.embed(pixels[:1], lonlat=[lonlat], dates=[time]), tokens[:1]) > 1e-4


def test_date_without_time_means_the_overpass_of_that_date(v15_encoder: Embedder, pixels: Pixels) -> None:
    date = datetime.date(2020, 6, 15)
    passed = overpass(date, LONLAT[0][0])
    assert passed.hour == 11  # and not midnight
    got, expected = (
        v15_encoder.embed(pixels[:1], lonlat=LONLAT[:1], dates=[moment]) for moment in (date, passed)
    )
    assert np.array_equal(got, expected)


def test_context_gives_the_inputs_of_encode(v15_encoder: Embedder, pixels: Pixels, tokens: Pixels) -> None:
    places, times = v15_encoder.context(LONLAT, TIMES)
    assert np.array_equal(v15_encoder.encode(torch.tensor(pixels), places, times, "cls").numpy(), tokens)


@pytest.mark.parametrize(
    "shape",
    [(10, 256, 256), (1, 13, 256, 256), (1, 10, 256, 128), (1, 10, 250, 250), (1, 10, 0, 0)],
    ids=["no batch", "13 bands", "no square", "no whole patches", "no pixels"],
)
def test_pixels_of_another_shape_are_refused(v15_encoder: Embedder, shape: tuple[int, ...]) -> None:
    message = (
        r"pixels have shape .*, expected \(B, 10, 256, 256\), or squares of another multiple of 8 pixels"
        r".*\(B02 .* B12\)"
    )
    with pytest.raises(ValueError, match=message):
        v15_encoder.embed(np.zeros(shape), lonlat=LONLAT[:1], dates=TIMES[:1])


def test_level_of_the_other_model_is_refused(v15_encoder: Embedder, pixels: Pixels) -> None:
    with pytest.raises(ValueError, match="level is 'group', expected one of cls, mean, patch"):
        v15_encoder.embed(pixels, lonlat=LONLAT, dates=TIMES, level="group")
