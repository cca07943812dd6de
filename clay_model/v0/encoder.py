"""The Clay v0 encoder, top to bottom.

A masked autoencoder's encoder, used without masking. What is unusual about it:

- One patch embedding for each of six band groups: a chip gives 6 x 256 tokens, not 256.
- Position and band-group encodings are fixed and not in the checkpoint (see `encodings`).
- Place and date enter as two extra tokens at the *end* of the sequence.

Shapes: B batch, C the 13 bands, G the 6 band groups, L the 256 patch locations, D the width of a token,
N = G * L + 2 all tokens.
"""

import datetime
from collections.abc import Sequence
from typing import ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from clay_model.encoder import Encoder as BaseEncoder
from clay_model.layers import PatchEmbedding, Transformer
from clay_model.model_spec import Dimensions, Level, ModelSpec
from clay_model.v0.encodings import encode_dates, encode_places, token_encoding
from clay_model.v0.spec import BAND_GROUPS, EXTRA_TOKENS, GRID, SPEC


class Encoder(BaseEncoder):
    """Chips to tokens.

    Args:
        dimensions: The size of the network.
    """

    spec: ClassVar[ModelSpec] = SPEC
    token_encoding: Tensor

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__(dimensions)
        dim = dimensions.dim
        self.patch_embeddings = nn.ModuleDict(
            {
                group: PatchEmbedding(SPEC, bands, dim, nn.LayerNorm(dim))
                for group, bands in BAND_GROUPS.items()
            }
        )
        self.place_embedding = nn.Linear(2, dim)
        self.date_embedding = nn.Linear(3, dim)
        self.transformer = Transformer(dimensions, output_bias=True)
        # Not learned and not in the checkpoint, hence not persistent.
        self.register_buffer("token_encoding", token_encoding(dim), persistent=False)

    @staticmethod
    def context(lonlat: ArrayLike, dates: Sequence[datetime.date]) -> tuple[Tensor, Tensor]:
        """Return places (B, 2) and dates (B, 3) as `forward` expects them; raises like `encodings`."""
        return encode_places(lonlat), encode_dates(dates)

    def forward(self, pixels: Tensor, places: Tensor, dates: Tensor) -> Tensor:
        """Encode a batch of chips.

        Args:
            pixels: (B, C, 512, 512) float32 in the bands' physical units.
            places: (B, 2) float32 from `encodings.encode_places`.
            dates: (B, 3) float32 from `encodings.encode_dates`.

        Returns:
            (B, N, D) float32: the patch tokens, group by group, then the tokens of place and date.
        """
        patches = torch.stack([embed(pixels) for embed in self.patch_embeddings.values()], dim=1)
        patches = patches + self.token_encoding  # (B, G, L, D)
        place = self.place_embedding(places).unsqueeze(1)  # (B, 1, D)
        date = self.date_embedding(dates).unsqueeze(1)  # (B, 1, D)
        return self.transformer(torch.cat((patches.flatten(1, 2), place, date), dim=1))  # (B, N, D)

    @staticmethod
    def pool(tokens: Tensor, level: Level) -> Tensor:
        """Reduce encoded tokens to embeddings, without the tokens of place and date.

        Args:
            tokens: (B, N, D) from the encoder.
            level: How much of a chip one vector describes.

        Returns:
            (B, D) for `mean`, (B, 16, 16, D) for `patch`, (B, 6, 16, 16, D) for `group`.
        """
        patches = tokens[:, :-EXTRA_TOKENS]  # (B, G*L, D)
        if level == "mean":
            return patches.mean(dim=1)  # (B, D)
        grouped = patches.unflatten(1, (len(BAND_GROUPS), GRID, GRID))  # (B, G, 16, 16, D)
        return grouped.mean(dim=1) if level == "patch" else grouped
