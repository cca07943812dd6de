"""Linear maps on the CPU with weights packed once for oneDNN, bias and GELU fused.

PyTorch's own CPU path multiplies float32 with MKL, which on AMD reaches about two thirds of oneDNN's rate,
and packs bf16 weights again on every call. The two operators used here are those that TorchInductor emits.
They are not public, so `packing_works` first compares their results with PyTorch's.
"""

from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear map like `nn.Linear`, optionally followed by the exact (erf) GELU.

    Args:
        weight: (N, K) float32 or bf16 on the CPU; copied into oneDNN's layout.
        bias: (N,) in the dtype of `weight`, or None.
        rows: Number of rows to optimise the layout for (those of one window); other numbers work as well.
        gelu: Apply the GELU to the result, before it is rounded to bf16.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, rows: int, gelu: bool = False) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)
        self.bias = None if bias is None else bias.detach()
        self.activation, self.algorithm = ("gelu", "none") if gelu else ("none", "")

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., K) → (..., N) in the same dtype."""
        # For strided rows oneDNN silently uses its reference kernel, a thousand times slower.
        return torch.ops.mkldnn._linear_pointwise(
            inputs.contiguous(), self.weight, self.bias, self.activation, [], self.algorithm
        )


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Return whether this PyTorch on this CPU has the packed operators and they compute the right numbers."""
    generator = torch.Generator().manual_seed(0)
    inputs, weight, bias = (
        torch.randn(shape, generator=generator) for shape in ((3, 7, 64), (48, 64), (48,))
    )
    inputs, weight, bias = inputs.to(dtype), (weight / 8).to(dtype), bias.to(dtype)
    linear = F.linear(inputs.double(), weight.double(), bias.double())
    try:
        with torch.inference_mode():
            plain = PackedLinear(weight, bias, rows=len(inputs))(inputs)
            fused = PackedLinear(weight, bias, rows=len(inputs), gelu=True)(inputs)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False  # another version of PyTorch, or a build or processor without the operators
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    return all(
        result.dtype == dtype and torch.allclose(result.double(), expected, rtol=tolerance, atol=tolerance)
        for result, expected in ((plain, linear), (fused, F.gelu(linear)))
    )
