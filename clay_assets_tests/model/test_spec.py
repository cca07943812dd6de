import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clay_model import V0, V15, Level, ModelSpec, model_of
from clay_model.spec import MODELS
from clay_model.v0.encoder import Encoder as EncoderV0
from clay_model.v0.spec import BAND_GROUPS, BANDS
from clay_model.v15.encoder import Encoder as EncoderV15


@pytest.mark.parametrize(("spec", "size", "flops"), [(V0, "small", 353e9), (V15, "large", 723e9)])
def test_released_sizes_cost_what_is_said_of_them(spec: ModelSpec, size: str, flops: float) -> None:
    assert spec.flops(spec.sizes[size]) == pytest.approx(flops, rel=0.005)


@pytest.mark.parametrize("size", V0.sizes)
def test_flops_of_v0_are_those_that_pytorch_counts(size: str) -> None:
    dimensions = V0.sizes[size]
    with torch.device("meta"):
        encoder = EncoderV0(dimensions).to("meta")
        inputs = torch.empty(1, 13, 512, 512), torch.empty(1, 2), torch.empty(1, 3)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        tokens = encoder(*inputs)
    assert tokens.shape == (1, 1538, dimensions.dim)
    place_and_date = 2 * (2 + 3) * dimensions.dim
    assert counter.get_total_flops() == V0.flops(dimensions) + place_and_date


@pytest.mark.parametrize("size", V15.sizes)
def test_flops_of_v15_are_those_that_pytorch_counts(size: str) -> None:
    dimensions = V15.sizes[size]
    with torch.device("meta"):
        encoder = EncoderV15(dimensions).to("meta")
        inputs = torch.empty(1, 10, 256, 256), torch.empty(1, 4), torch.empty(1, 4)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        tokens = encoder(*inputs)
    assert tokens.shape == (1, 1025, dimensions.dim)
    assert counter.get_total_flops() == V15.flops(dimensions)


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_every_band_has_its_statistics(spec: ModelSpec) -> None:
    assert len(set(spec.bands)) == len(spec.mean) == len(spec.deviation)
    assert spec.wavelengths is None or len(spec.wavelengths) == len(spec.bands)
    assert min(spec.deviation) > 0


def test_every_band_of_v0_is_in_one_group() -> None:
    grouped = [band for bands in BAND_GROUPS.values() for band in bands]
    assert sorted(grouped) == list(range(13))


def test_rgb_is_red_green_blue() -> None:
    assert [BANDS[band] for band in BAND_GROUPS["rgb"]] == ["B04", "B03", "B02"]


def test_bands_of_v15_are_the_first_ten_of_v0() -> None:
    assert V15.bands == V0.bands[:10]


def test_wavelengths_rise_from_band_to_band() -> None:
    assert V15.wavelengths is not None
    assert sorted(V15.wavelengths) == list(V15.wavelengths)


@pytest.mark.parametrize(
    ("spec", "level", "shape"),
    [
        (V0, "mean", (768,)),
        (V0, "patch", (16, 16, 768)),
        (V0, "group", (6, 16, 16, 768)),
        (V15, "cls", (768,)),
        (V15, "mean", (768,)),
        (V15, "patch", (32, 32, 768)),
    ],
)
def test_level_has_its_shape(spec: ModelSpec, level: Level, shape: tuple[int, ...]) -> None:
    assert spec.embedding_shape(level, 768) == shape


def test_each_model_has_its_default_level() -> None:
    assert (V0.default_level, V15.default_level) == ("mean", "cls")


@pytest.mark.parametrize(
    ("spec", "level", "known"),
    [
        (V0, "pixel", "mean, patch, group (those of Clay v0)"),
        (V0, "cls", "mean, patch, group (those of Clay v0)"),
        (V15, "group", "cls, mean, patch (those of Clay v1.5)"),
    ],
)
def test_level_that_the_model_lacks_is_refused_with_those_it_has(
    spec: ModelSpec, level: str, known: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"level is {level!r}, expected one of {known}")):
        spec.embedding_shape(level, 768)


@pytest.mark.parametrize(
    ("name", "spec", "size"),
    [
        ("clay-v0-small", V0, "small"),
        ("clay-v1.5-large", V15, "large"),
        ("clay-v1.5-custom", V15, "custom"),
    ],
)
def test_name_means_its_model_and_size(name: str, spec: ModelSpec, size: str) -> None:
    assert model_of(name) == (spec, size)
    assert spec.model_name(size) == name


@pytest.mark.parametrize("name", ["clay-v1-base", "clay-v15-large", "clay-v0", "", "small"])
def test_name_of_neither_model_is_refused_with_both(name: str) -> None:
    with pytest.raises(ValueError, match=f"the model is '{name}', expected clay-v0-… or clay-v1.5-…"):
        model_of(name)
