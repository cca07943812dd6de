import datetime
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clay_model import V0, V15, Level, ModelSpec, model_of
from clay_model.encoder import Encoder
from clay_model.spec import MODELS
from clay_model.v0.encoder import Encoder as EncoderV0
from clay_model.v0.spec import BAND_GROUPS
from clay_model.v15.encoder import Encoder as EncoderV15

DATE = datetime.date(2020, 6, 15)


@pytest.mark.parametrize(("spec", "size", "flops"), [(V0, "small", 353e9), (V15, "large", 723e9)])
def test_released_sizes_have_their_documented_flops(spec: ModelSpec, size: str, flops: float) -> None:
    assert spec.flops(spec.sizes[size]) == pytest.approx(flops, rel=0.005)


@pytest.mark.parametrize(
    ("encoder_of", "size"), [(kind, size) for kind in (EncoderV0, EncoderV15) for size in kind.spec.sizes]
)
def test_flops_equal_the_count_of_pytorch(encoder_of: type[Encoder], size: str) -> None:
    spec = encoder_of.spec
    dimensions = spec.sizes[size]
    with torch.device("meta"):
        encoder = encoder_of(dimensions).to("meta")
        pixels = torch.empty(1, len(spec.bands), spec.window_size, spec.window_size)
        context = [torch.empty(part.shape) for part in encoder.context([(0, 0)], [DATE])]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        tokens = encoder(pixels, *context)
    assert tokens.shape == (1, spec.tokens, dimensions.dim)
    place_and_date = 2 * (2 + 3) * dimensions.dim if spec is V0 else 0  # two small linear maps
    assert counter.get_total_flops() == spec.flops(dimensions) + place_and_date


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_every_band_has_its_statistics(spec: ModelSpec) -> None:
    assert len(set(spec.bands)) == len(spec.mean) == len(spec.deviation)
    assert spec.wavelengths is None or len(spec.wavelengths) == len(spec.bands)
    assert min(spec.deviation) > 0


def test_every_band_of_v0_is_in_one_group() -> None:
    grouped = [band for bands in BAND_GROUPS.values() for band in bands]
    assert sorted(grouped) == list(range(13))


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


@pytest.mark.parametrize(
    ("spec", "level", "known"),
    [
        (V0, "pixel", "mean, patch, group (those of Clay v0)"),
        (V0, "cls", "mean, patch, group (those of Clay v0)"),
        (V15, "group", "cls, mean, patch (those of Clay v1.5)"),
    ],
)
def test_unknown_level_is_refused_with_the_levels_of_the_model(
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
def test_name_determines_model_and_size(name: str, spec: ModelSpec, size: str) -> None:
    assert model_of(name) == (spec, size)
    assert spec.model_name(size) == name


@pytest.mark.parametrize("name", ["clay-v1-base", "clay-v15-large", "clay-v0", "", "small"])
def test_name_of_neither_model_is_refused_with_both(name: str) -> None:
    with pytest.raises(ValueError, match=f"the model is '{name}', expected clay-v0-… or clay-v1.5-…"):
        model_of(name)
