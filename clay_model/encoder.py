"""The base class of both encoders: all that the rest of the package uses."""

import datetime
from collections.abc import Sequence
from typing import ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from clay_model.layers import PatchEmbedding, Transformer
from clay_model.model_spec import Dimensions, Level, ModelSpec


class Encoder(nn.Module):
    """Pixels, places and dates to tokens; see `v0.encoder` and `v15.encoder`.

    Parameters are float32 as loaded; `to_precision` puts the large matrix products (and only those) in bf16.

    Args:
        dimensions: The size of the network.
    """

    spec: ClassVar[ModelSpec]

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.dimensions = dimensions

    def to_precision(self, dtype: torch.dtype) -> None:
        """Convert the weights of the patch embeddings' and the transformer's matrix products to `dtype`.

        Clay v0's maps of place and date stay float32: they cost nothing, and their inputs are exact angles.
        """
        for part in self.modules():
            if isinstance(part, PatchEmbedding | Transformer):
                for module in part.modules():
                    if isinstance(module, nn.Linear | nn.Conv2d):
                        module.to(dtype)

    @staticmethod
    def context(lonlat: ArrayLike, dates: Sequence[datetime.date]) -> tuple[Tensor, Tensor]:
        """Return places and dates as `forward` expects them."""
        raise NotImplementedError

    def forward(self, pixels: Tensor, places: Tensor, dates: Tensor) -> Tensor:
        """Encode pixels (B, C, S, S) in physical units and their context to tokens (B, N, D), float32."""
        raise NotImplementedError

    @staticmethod
    def pool(tokens: Tensor, level: Level) -> Tensor:
        """Reduce encoded tokens to embeddings."""
        raise NotImplementedError
