"""The limit: how fast a device multiplies matrices of the network's own shapes."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from clay_model.kernels.packed import PackedLinear, packing_works
from clay_model.spec import Dimensions

Product = tuple[str, int, Callable[[], object]]
"""What it is, its floating-point operations, how to do it once."""


def network_products(
    dimensions: Dimensions, rows: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Product]:
    """The four linear maps of a layer, by every way there is.

    Args:
        dimensions: The network's size.
        rows: Tokens that are multiplied at a time.
        dtype: float32 or bfloat16.
        device: Where to multiply.
    """
    attention, mlp = dimensions.attention_dim, dimensions.mlp_dim
    shapes = (
        (dimensions.dim, 3 * attention),
        (attention, dimensions.dim),
        (dimensions.dim, mlp),
        (mlp, dimensions.dim),
    )
    for inner, columns in shapes:
        tokens = torch.randn(rows, inner, dtype=dtype, device=device)
        weight = torch.randn(columns, inner, dtype=dtype, device=device)
        flops = 2 * rows * inner * columns
        shape = f"{rows} x {inner} x {columns}"
        yield f"linear {shape}", flops, _linear(tokens, weight)
        if device.type == "cpu" and packing_works(dtype):
            yield f"packed {shape}", flops, _packed(tokens, weight)


def square_product(dtype: torch.dtype, device: torch.device, size: int = 8192) -> Product:
    """The usual yardstick of a GPU: two square matrices."""
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return f"linear {size} x {size} x {size}", 2 * size**3, _linear(left, right)


def _linear(tokens: Tensor, weight: Tensor) -> Callable[[], object]:
    return lambda: functional.linear(tokens, weight)


def _packed(tokens: Tensor, weight: Tensor) -> Callable[[], object]:
    packed = PackedLinear(weight, rows=len(tokens))
    return lambda: packed(tokens)
