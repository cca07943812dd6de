"""The encoder's vectors against those of the published Clay v1.5 code for the same weights and windows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clay_assets_tests.golden.v15 import WINDOWS, GoldenWindow, expected
from clay_assets_tests.model.test_golden_v0 import BOUND, PLACES, assert_close
from clay_model import Embedder, Level, Precision, load_encoder, read_checkpoint
from clay_model.v15.encodings import encode_places, encode_times

Vectors = NDArray[np.floating]

LOCATED = [window for window in WINDOWS if window.lonlat is not None]


def name_of(window: GoldenWindow) -> str:
    return f"{window.pixels_of}-{window.window[-1]}"


@pytest.fixture(scope="module", params=PLACES)
def small(request: pytest.FixtureRequest, v15_checkpoint: Path) -> Embedder:
    return load_encoder(v15_checkpoint, *request.param)


def embed(encoder: Embedder, window: GoldenWindow, level: Level | None = None) -> Vectors:
    if (
        window.lonlat is None or window.moment is None
    ):  # `embed` requires a place and a time, the network does not
        pixels = torch.from_numpy(window.pixels()[None])
        level = level or encoder.spec.default_level
        return encoder.encode(pixels, torch.zeros(1, 4), torch.zeros(1, 4), level).cpu().numpy()
    return encoder.embed(window.pixels()[None], lonlat=[window.lonlat], dates=[window.moment], level=level)


@pytest.mark.parametrize("window", WINDOWS, ids=name_of)
def test_window_has_the_references_class_token(small: Embedder, window: GoldenWindow) -> None:
    assert_close(embed(small, window)[0], expected()["small"][WINDOWS.index(window)], BOUND[small.precision])


def test_first_window_has_the_references_vectors_at_each_level(small: Embedder) -> None:
    bound = BOUND[small.precision]
    assert_close(embed(small, WINDOWS[0], "cls"), expected()["small_float64"], bound)
    assert_close(embed(small, WINDOWS[0], "mean"), expected()["small_mean"], bound)
    assert_close(embed(small, WINDOWS[0], "patch")[:, ::8, ::8], expected()["small_patch"], bound)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_plain_path_has_the_references_class_token(v15_checkpoint: Path, precision: Precision) -> None:
    checkpoint = read_checkpoint(v15_checkpoint)
    encoder = Embedder(checkpoint.encoder, torch.device("cpu"), precision, fast=False)
    assert_close(embed(encoder, WINDOWS[1]), expected()["small"][1:2], BOUND[precision])


@pytest.mark.parametrize("window", LOCATED, ids=name_of)
def test_time_and_place_match_the_reference(window: GoldenWindow) -> None:
    assert window.moment is not None
    assert window.lonlat is not None
    assert encode_times([window.moment])[0].tolist() == pytest.approx(window.time, abs=1e-6)
    assert encode_places([window.lonlat])[0].tolist() == pytest.approx(window.latlon, abs=1e-6)
