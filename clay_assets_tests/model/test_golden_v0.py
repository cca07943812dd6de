"""The encoder's vectors against those of the published Clay v0 code for the same weights and chips."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clay_assets_tests.golden import REAL_CHIPS, RECIPE_CHIPS, GoldenChip, expected
from clay_model import Embedder, Level, Precision, load_encoder
from clay_model.checkpoint import read_checkpoint

BOUND: dict[Precision, float] = {"fp32": 1e-5, "bf16": 1e-2}
"""Largest relative distance of any one vector to the reference's."""

Vectors = NDArray[np.floating]


def assert_close(got: Vectors, reference: Vectors, bound: float) -> None:
    """Check each vector (last axis): its relative L2 distance must be below the bound."""
    assert got.shape == reference.shape
    distance = np.linalg.norm(got - reference, axis=-1) / np.linalg.norm(reference, axis=-1)
    assert distance.max() < bound, f"{distance.max():.2e} of {distance.size} vectors, allowed {bound:.0e}"


@functools.cache
def pixels_of(chip: GoldenChip) -> NDArray[np.float32]:
    return chip.pixels()


def embed(encoder: Embedder, chips: Sequence[GoldenChip], level: Level = "mean") -> Vectors:
    return encoder.embed(
        np.stack([pixels_of(chip) for chip in chips]),
        lonlat=[chip.lonlat for chip in chips],
        dates=[chip.date for chip in chips],
        level=level,
    )


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
PLACES = [
    pytest.param(("cpu", "fp32"), id="cpu-fp32"),
    pytest.param(("cpu", "bf16"), id="cpu-bf16"),
    pytest.param(("cuda", "fp32"), id="cuda-fp32", marks=CUDA),
    pytest.param(("cuda", "bf16"), id="cuda-bf16", marks=CUDA),
]
"""Device and precision."""


@pytest.fixture(scope="module", params=PLACES)
def small(request: pytest.FixtureRequest, small_checkpoint: Path) -> Embedder:
    return load_encoder(small_checkpoint, *request.param)


def reference_of(chip: GoldenChip) -> Vectors:
    arrays = expected()
    if chip.real:
        return arrays["real_small_mean"][REAL_CHIPS.index(chip)]
    return arrays["small_mean"][RECIPE_CHIPS.index(chip)]


def test_first_chip_has_the_references_vectors_at_each_level(small: Embedder) -> None:
    chip = RECIPE_CHIPS[0]
    with torch.inference_mode():  # one pass through the network serves the three levels
        pixels = torch.from_numpy(pixels_of(chip)[None])
        inputs = (pixels, *small.context([chip.lonlat], [chip.date]))
        tokens = small.encoder(*(part.to(small.device) for part in inputs))
        mean, patch, group = (
            small.encoder.pool(tokens, level).cpu().numpy() for level in ("mean", "patch", "group")
        )
    bound = BOUND[small.precision]
    assert tokens.shape == (1, 6 * 256 + 2, 768)
    assert_close(mean, expected()["small_mean"][:1], bound)
    assert_close(mean, expected()["small_mean_float64"], bound)
    assert_close(patch, expected()["small_patch"], bound)
    assert_close(group[:, :, ::5, ::5], expected()["small_group"], bound)


@pytest.mark.parametrize("chip", RECIPE_CHIPS[1:] + REAL_CHIPS, ids=lambda chip: chip.name)
def test_chip_has_the_references_vector(small: Embedder, chip: GoldenChip) -> None:
    assert_close(embed(small, [chip])[0], reference_of(chip), BOUND[small.precision])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fast", [True, False], ids=["fast path", "plain path"])
def test_tiny_model_has_the_references_vectors(
    tiny_checkpoint: Path, precision: Precision, fast: bool
) -> None:
    checkpoint = read_checkpoint(tiny_checkpoint)
    encoder = Embedder(checkpoint.encoder, torch.device("cpu"), precision, fast=fast)
    assert_close(embed(encoder, RECIPE_CHIPS[:2]), expected()["tiny_mean"], BOUND[precision])
