"""Generates the kernels of the patch embedding from the bands' wavelengths, after DOFA (Xiong et al. 2024).

Each band becomes a token made of its wavelength alone. One transformer layer mixes these with learned tokens,
128 before and one after; each band's token then gives the band's kernels, the last one the bias. So a network
trained on many sensors has an embedding for each of them.

It runs once per checkpoint, in float32 for any precision of the encoder.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor, nn

from clay_model.layers import fixed
from clay_model.sincos import encode_values
from clay_model.v15.spec import KERNEL_SCALE, PATCH_SIZE, WAVE_DIM, WAVE_HEADS, WAVE_MLP_DIM, WEIGHT_TOKENS


class KernelGenerator(nn.Module):
    """Generates a patch embedding for any bands.

    Args:
        dim: Width of the embedding's tokens, D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(WAVE_DIM, WAVE_DIM)
        self.second = nn.Linear(WAVE_DIM, WAVE_DIM)
        self.weight_tokens = nn.Parameter(torch.zeros(WEIGHT_TOKENS, WAVE_DIM))
        self.bias_token = nn.Parameter(torch.zeros(1, WAVE_DIM))
        self.mixer = nn.TransformerEncoderLayer(
            WAVE_DIM, WAVE_HEADS, WAVE_MLP_DIM, dropout=0.0, activation="gelu", batch_first=True
        )
        self.to_kernels = nn.Linear(WAVE_DIM, dim * PATCH_SIZE**2)
        self.to_bias = nn.Linear(WAVE_DIM, dim)

    def forward(self, wavelengths: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Generate the patch embedding of these bands.

        Args:
            wavelengths: C of them, µm.

        Returns:
            Kernels (D, C, 8, 8) and bias (D,) of a convolution.
        """
        waves = encode_values(fixed(wavelengths), WAVE_DIM)  # (C, 128)
        waves = waves + F.gelu(self.second(F.gelu(self.first(waves))))
        tokens = torch.cat((self.weight_tokens, waves, self.bias_token))  # (128 + C + 1, 128)
        mixed = self.mixer(tokens.unsqueeze(0)).squeeze(0)
        kernels = self.to_kernels(mixed[WEIGHT_TOKENS:-1] + waves)  # (C, D * 8 * 8)
        kernels = kernels.unflatten(1, (-1, PATCH_SIZE, PATCH_SIZE)).transpose(0, 1)  # (D, C, 8, 8)
        return KERNEL_SCALE * kernels.contiguous(), self.to_bias(mixed[-1])
