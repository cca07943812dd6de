"""A patch embedding on the CPU as one matrix product.

A convolution whose stride equals its kernel is a linear map of each patch. Bands are normalised one at a
time, while they are cached, and written directly to their place in the matrix of patches.
"""

import torch
from torch import Tensor, nn

from clay_model.kernels.packed import PackedLinear
from clay_model.layers import PatchEmbedding


class PackedPatchEmbedding(nn.Module):
    """A `layers.PatchEmbedding` with packed weights.

    Args:
        plain: The embedding on the CPU, in its final precision.
        rows: Patches of one window.
    """

    def __init__(self, plain: PatchEmbedding, *, rows: int) -> None:
        super().__init__()
        self.bands = plain.bands
        self.patch_size = plain.patch_size
        self.means, self.deviations = plain.mean.flatten().tolist(), plain.deviation.flatten().tolist()
        self.dtype = plain.proj.weight.dtype
        self.norm = plain.norm
        self.project = PackedLinear(plain.proj.weight.flatten(1), plain.proj.bias, rows=rows)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, S, S) pixels in physical units → (B, L, D) float32."""
        return self.norm(self.project(self._patches(pixels)).float())

    def _patches(self, pixels: Tensor) -> Tensor:
        """Return normalised patches, (B, L, bands * P * P)."""
        batch, side, patch = len(pixels), pixels.shape[-1], self.patch_size
        grid = side // patch
        patches = torch.empty((batch, grid, grid, len(self.bands), patch, patch), dtype=self.dtype)
        band_buffer = torch.empty(side, side)
        for chip in range(batch):
            for place, band in enumerate(self.bands):
                torch.sub(pixels[chip, band], self.means[place], out=band_buffer).div_(self.deviations[place])
                tiles = band_buffer.view(grid, patch, grid, patch).transpose(1, 2)
                patches[chip, :, :, place] = tiles  # (S / P, S / P, P, P)
        return patches.view(batch, grid**2, -1)
