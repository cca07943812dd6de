"""The Clay v1.5 encoder, top to bottom.

A masked autoencoder's encoder, used without masking. What is unusual about it:

- The patch embedding is generated from the bands' wavelengths by a second network (`generator`). The result
  depends on the weights alone, so it is generated once, when a checkpoint is loaded.
- The position encoding has nearly the same frequency in all channels: it falls by 10,000^(2 / (D - 8)), not
  by a factor of 10,000. The weights were trained with it (see `encodings`).
- Time and place are not tokens but the last 8 numbers of the encoding, the same for all patches.
- A class token, first in the sequence and without an encoding, is the embedding.

Shapes: B batch, C the 10 bands, S pixels along a window's side (256 in training), L = (S / 8)² patches, D the
width of a token, N = 1 + L all tokens.
"""

import datetime
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from clay_model.encoder import Encoder as BaseEncoder
from clay_model.layers import PatchEmbedding, Transformer
from clay_model.model_spec import Dimensions, Level, ModelSpec
from clay_model.v15.encodings import encode_places, encode_times, position_encoding, with_time_of_day
from clay_model.v15.spec import CONTEXT_DIM, GRID, SPEC


class Encoder(BaseEncoder):
    """Windows to tokens.

    Args:
        dimensions: The size of the network.
    """

    spec: ClassVar[ModelSpec] = SPEC
    position: Tensor

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__(dimensions)
        dim = dimensions.dim
        # `generator` computes its weights from the wavelengths; the checkpoint does not have them.
        self.patch_embedding = PatchEmbedding(SPEC, range(len(SPEC.bands)), dim, nn.Identity())
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.transformer = Transformer(dimensions, output_bias=False)
        # Not learned and not in the checkpoint, hence not persistent.
        self.register_buffer("position", position_encoding(GRID, dim - CONTEXT_DIM), persistent=False)

    @staticmethod
    def context(lonlat: ArrayLike, dates: Sequence[datetime.date]) -> tuple[Tensor, Tensor]:
        """Return places (B, 4) and times (B, 4) as `forward` expects them; raises like `encodings`.

        A date without a time of day gets that of Sentinel-2's overpass.
        """
        return encode_places(lonlat), encode_times(with_time_of_day(dates, lonlat))

    def forward(self, pixels: Tensor, places: Tensor, times: Tensor) -> Tensor:
        """Encode a batch of windows.

        Args:
            pixels: (B, C, S, S) float32 in the bands' physical units, S a multiple of 8.
            places: (B, 4) float32 from `encodings.encode_places`.
            times: (B, 4) float32 from `encodings.encode_times`.

        Returns:
            (B, N, D) float32: the class token, then the patch tokens, row by row.
        """
        patches = self.patch_embedding(pixels)  # (B, L, D)
        position = self.position  # (L, D - 8)
        if len(position) != patches.shape[1]:  # a window of another size
            grid = math.isqrt(patches.shape[1])
            position = position_encoding(grid, position.shape[1]).to(position.device)
        context = torch.cat((times, places), dim=1).unsqueeze(1)  # (B, 1, 8)
        batch, count, _ = patches.shape
        encoding = torch.cat(
            (position.expand(batch, -1, -1), context.expand(-1, count, -1)), dim=2
        )  # (B, L, D)
        first = self.class_token.expand(batch, -1, -1)  # (B, 1, D)
        return self.transformer(torch.cat((first, patches + encoding), dim=1))  # (B, N, D)

    @staticmethod
    def pool(tokens: Tensor, level: Level) -> Tensor:
        """Reduce encoded tokens to embeddings.

        Args:
            tokens: (B, N, D) from the encoder.
            level: How much of a window one vector describes.

        Returns:
            (B, D) for `cls` and `mean`, (B, S / 8, S / 8, D) for `patch`.
        """
        if level == "cls":
            return tokens[:, 0]  # (B, D)
        patches = tokens[:, 1:]  # (B, L, D)
        if level == "mean":
            return patches.mean(dim=1)  # (B, D)
        grid = math.isqrt(patches.shape[1])
        return patches.unflatten(1, (grid, grid))  # (B, S / 8, S / 8, D)
