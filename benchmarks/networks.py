"""Encoders with random weights, peers with the same weights, and random inputs."""

import datetime

import torch
from torch import Tensor, nn

from benchmarks.peer import PeerV0, PeerV15
from clay_model import V0, V15
from clay_model.encoder import Encoder
from clay_model.v0.encoder import Encoder as EncoderV0
from clay_model.v15.encoder import Encoder as EncoderV15
from clay_model.v15.generator import KernelGenerator
from clay_model.v15.spec import WAVELENGTHS

RELEASED = {"v0": (V0, "small"), "v1.5": (V15, "large")}
"""Each model and its released size."""


def network(model: str, size: str) -> tuple[Encoder, nn.Module]:
    """Return our encoder with random weights, and the peer with the same weights."""
    if model == "v0":
        encoder = EncoderV0(V0.sizes[size]).requires_grad_(False)
        return encoder, PeerV0(encoder)
    dimensions = V15.sizes[size]
    generator = KernelGenerator(dimensions.dim).eval().requires_grad_(False)
    later = EncoderV15(dimensions).requires_grad_(False)
    projection = later.patch_embedding.proj
    kernels, bias = generator(WAVELENGTHS)
    projection.load_state_dict({"weight": kernels, "bias": bias})
    return later, PeerV15(later, generator)


def random_inputs(encoder: Encoder, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return pixels with each band's own mean and deviation, places and dates of `count` chips."""
    spec = encoder.spec
    deviation, mean = (torch.tensor(values).view(-1, 1, 1) for values in (spec.deviation, spec.mean))
    noise = torch.randn(count, len(spec.bands), spec.window_size, spec.window_size)
    pixels = noise * deviation + mean
    places, dates = encoder.context([(10.0, 50.0)] * count, [datetime.date(2020, 6, 15)] * count)
    return pixels.to(device), places.to(device), dates.to(device)
