"""Sine-cosine encodings (Vaswani et al. 2017), as both models use them; computed, not in the checkpoint."""

import torch
from torch import Tensor

TEMPERATURE = 10_000.0
"""Ratio of the longest to the shortest wavelength."""


def exponents(count: int) -> Tensor:
    """Return (count,) float32 numbers from 0 to 1, evenly spaced."""
    return torch.arange(count, dtype=torch.float32, device="cpu") / (count - 1)


def encode_values(values: Tensor, dim: int) -> Tensor:
    """Encode numbers at frequencies 1 / TEMPERATURE^(i / (dim / 2 - 1)).

    Args:
        values: (n,).
        dim: Width of the encoding, even.

    Returns:
        (n, dim) float32; half sine, half cosine.
    """
    angles = values.reshape(-1, 1) * (1.0 / TEMPERATURE ** exponents(dim // 2))
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def encode_grid(side: int, frequencies: Tensor) -> Tensor:
    """Encode the position of each cell of a square grid.

    Args:
        side: Cells along a side.
        frequencies: (n,) float32, per cell.

    Returns:
        (side², 4 * n) float32, cells row by row; a quarter each of sin x, cos x, sin y, cos y.
    """
    steps = torch.arange(side, device="cpu")
    row, column = torch.meshgrid(steps, steps, indexing="ij")
    x = column.reshape(-1, 1) * frequencies
    y = row.reshape(-1, 1) * frequencies
    return torch.cat((x.sin(), x.cos(), y.sin(), y.cos()), dim=1)
