from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clay_model import BANDS, SIZES, Encoder, Level, ModelSize, embedding_shape
from clay_model.spec import BAND_GROUPS, DEVIATION, LEVELS, MEAN


def test_small_costs_353_gflop_a_chip() -> None:
    assert SIZES["small"].flops == pytest.approx(353e9, rel=0.005)


@pytest.mark.parametrize("size", get_args(ModelSize))
def test_flops_are_those_that_pytorch_counts(size: ModelSize) -> None:
    dimensions = SIZES[size]
    with torch.device("meta"):
        encoder = Encoder(dimensions).to("meta")
        inputs = torch.empty(1, 13, 512, 512), torch.empty(1, 2), torch.empty(1, 3)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        tokens = encoder(*inputs)
    assert tokens.shape == (1, 1538, dimensions.dim)
    place_and_date = 2 * (2 + 3) * dimensions.dim
    assert counter.get_total_flops() == dimensions.flops + place_and_date


def test_every_band_is_in_one_group_at_most_and_has_its_statistics() -> None:
    grouped = [band for bands in BAND_GROUPS.values() for band in bands]
    assert sorted(grouped) == list(range(13))
    assert len(BANDS) == len(MEAN) == len(DEVIATION) == 13


def test_rgb_is_red_green_blue() -> None:
    assert [BANDS[band] for band in BAND_GROUPS["rgb"]] == ["B04", "B03", "B02"]


@pytest.mark.parametrize(
    ("level", "shape"), [("mean", (768,)), ("patch", (16, 16, 768)), ("group", (6, 16, 16, 768))]
)
def test_level_has_its_shape(level: Level, shape: tuple[int, ...]) -> None:
    assert embedding_shape(level, 768) == shape
    assert level in LEVELS


def test_unknown_level_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="level is 'pixel', expected one of mean, patch, group"):
        embedding_shape("pixel", 768)  # type: ignore[arg-type]
