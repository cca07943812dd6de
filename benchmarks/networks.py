"""The subjects of `benchmarks.encoder`: encoders with random weights, their peers, and matrix products."""

import datetime
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peer import PeerV0, PeerV15
from clay_model import V0, V15
from clay_model.encoder import Encoder
from clay_model.kernels.packed import PackedLinear, packing_works
from clay_model.spec import Dimensions
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


# The limit: matrix products of the network's shapes

Product = tuple[str, int, Callable[[], object]]
"""Description, floating-point operations, function that does it once."""


def network_products(
    dimensions: Dimensions, rows: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Product]:
    """Yield the four linear maps of a layer on `rows` tokens, by every available operator."""
    dim, attention, mlp = dimensions.dim, dimensions.attention_dim, dimensions.mlp_dim
    for inner, columns in ((dim, 3 * attention), (attention, dim), (dim, mlp), (mlp, dim)):
        tokens = torch.randn(rows, inner, dtype=dtype, device=device)
        weight = torch.randn(columns, inner, dtype=dtype, device=device)
        flops = 2 * rows * inner * columns
        shape = f"{rows} x {inner} x {columns}"
        yield f"linear {shape}", flops, _linear(tokens, weight)
        if device.type == "cpu" and packing_works(dtype):
            yield f"packed {shape}", flops, _packed(tokens, weight)


def square_product(dtype: torch.dtype, device: torch.device, size: int = 8192) -> Product:
    """Return a product of two square matrices, the usual measure of a GPU."""
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return f"linear {size} x {size} x {size}", 2 * size**3, _linear(left, right)


def _linear(tokens: Tensor, weight: Tensor) -> Callable[[], object]:
    return lambda: functional.linear(tokens, weight)


def _packed(tokens: Tensor, weight: Tensor) -> Callable[[], object]:
    packed = PackedLinear(weight, rows=len(tokens))
    return lambda: packed(tokens)
