"""The limit of the encoder: the device's rate of matrix products of the network's shapes."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from clay_model.kernels.packed import PackedLinear, packing_works
from clay_model.spec import Dimensions

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
