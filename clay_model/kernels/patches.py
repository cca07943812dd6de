"""Patch embeddings on the CPU as one matrix product per band group.

A convolution whose stride is its kernel is a linear map of each patch. Bands are normalised one at a time,
while they are in the cache, and written straight to their place in the matrix of patches.
"""

import torch
from torch import Tensor, nn

from clay_model.encoder import PatchEmbedding, PatchEmbeddings
from clay_model.kernels.packed import PackedLinear
from clay_model.spec import CHIP_SIZE, GRID, PATCH_SIZE, PATCHES


class PackedPatchEmbeddings(nn.Module):
    """What `encoder.PatchEmbeddings` computes, from packed weights.

    Args:
        plain: The embeddings on the CPU, in their final precision.
    """

    def __init__(self, plain: PatchEmbeddings) -> None:
        super().__init__()
        parts = [part for part in plain.values() if isinstance(part, PatchEmbedding)]
        self.bands = [part.bands for part in parts]
        self.dtype = parts[0].proj.weight.dtype
        self.norms = nn.ModuleList(part.norm for part in parts)
        self.projections = nn.ModuleList(
            PackedLinear(part.proj.weight.flatten(1), part.proj.bias) for part in parts
        )

    def forward(self, pixels: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """(B, C, 512, 512) pixels in physical units, (C, 1, 1), (C, 1, 1) → (B, G, L, D) float32."""
        means, deviations = mean.flatten().tolist(), deviation.flatten().tolist()
        groups = [
            norm(project(self._patches(pixels, bands, means, deviations)).float())
            for bands, project, norm in zip(self.bands, self.projections, self.norms, strict=True)
        ]
        return torch.stack(groups, dim=1)

    def _patches(
        self, pixels: Tensor, bands: list[int], means: list[float], deviations: list[float]
    ) -> Tensor:
        """Normalised patches of some bands: (B, L, bands * 32 * 32)."""
        size = (len(pixels), GRID, GRID, len(bands), PATCH_SIZE, PATCH_SIZE)
        patches = torch.empty(size, dtype=self.dtype)
        band_buffer = torch.empty(CHIP_SIZE, CHIP_SIZE)
        for chip in range(len(pixels)):
            for place, band in enumerate(bands):
                torch.sub(pixels[chip, band], means[band], out=band_buffer).div_(deviations[band])
                tiles = band_buffer.view(GRID, PATCH_SIZE, GRID, PATCH_SIZE).transpose(1, 2)
                patches[chip, :, :, place] = tiles  # (16, 16, 32, 32)
        return patches.view(len(pixels), PATCHES, -1)
