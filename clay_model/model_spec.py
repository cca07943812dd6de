"""The types that describe a model; the two instances are in `v0.spec` and `v15.spec`.

No PyTorch here, so that the bands' names can be read without its import.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

HEAD_DIM = 64
"""Width of one attention head, in every size of either model."""

Precision = Literal["fp32", "bf16"]
"""Number type of the matrix products."""

Level = Literal["cls", "mean", "patch", "group"]
"""How much of a window one embedding describes; `ModelSpec.levels` has those of a model."""


@dataclass(frozen=True)
class Dimensions:
    """The size of an encoder.

    Attributes:
        dim: Width of a token, D.
        depth: Transformer layers.
        heads: Attention heads, each `HEAD_DIM` wide; their total width may differ from a token's.
        mlp_ratio: Width of the hidden layer of each MLP, in token widths.
    """

    dim: int
    depth: int
    heads: int
    mlp_ratio: int

    @property
    def attention_dim(self) -> int:
        """Width of all heads together."""
        return self.heads * HEAD_DIM

    @property
    def mlp_dim(self) -> int:
        """Width of the hidden layer of each MLP."""
        return self.dim * self.mlp_ratio


@dataclass(frozen=True, eq=False)
class ModelSpec:
    """A model, independent of its size. There is one instance per model.

    Attributes:
        name: The model's name without its size, e.g. `clay-v0`.
        bands: The bands in the order that the network expects.
        mean: Mean of each band over the training chips, in the band's unit.
        deviation: Standard deviation of each band over the training chips, in the band's unit.
        wavelengths: Centre of each band, µm; None if the network does not use it.
        window_size: Pixels along the side of the windows that the network was trained on; 10 m each.
        other_windows: Whether the network takes square windows of any whole number of patches.
        patch_size: Pixels along a patch's side, and the stride between patches.
        tokens: Tokens of a window of `window_size`.
        sizes: Name of each size → its dimensions.
        levels: Each level → the shape of a window's embedding before the width of a token.
        default_level: The model's own level.
        time_of_day: Whether the network uses the hour of acquisition as well as its date.
        preprocessing_version: Increase it when the same pixels, place and time give other network inputs:
            older vectors are then stale.
        licence: SPDX identifier of the released weights' licence; None if the licence has no identifier.
    """

    name: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    wavelengths: tuple[float, ...] | None
    window_size: int
    other_windows: bool
    patch_size: int
    tokens: int
    sizes: Mapping[str, Dimensions]
    levels: Mapping[Level, tuple[int, ...]]
    default_level: Level
    time_of_day: bool
    preprocessing_version: int
    licence: str | None

    @property
    def title(self) -> str:
        """The name for people, e.g. `Clay v0`."""
        return self.name.replace("clay-", "Clay ")

    def model_name(self, size: str) -> str:
        """Return the name of a model of this size, e.g. `clay-v0-small`."""
        return f"{self.name}-{size}"

    def embedding_shape(self, level: str, dim: int) -> tuple[int, ...]:
        """Return the shape of the embedding of a window of `window_size`.

        Args:
            level: One of `levels`.
            dim: Width of a token, D.

        Raises:
            ValueError: If the model has no such level.
        """
        for known, shape in self.levels.items():
            if level == known:
                return (*shape, dim)
        raise ValueError(
            f"level is {level!r}, expected one of {', '.join(self.levels)} (those of {self.title})"
        )

    def flops(self, dimensions: Dimensions) -> int:
        """Return the FLOP of encoding one window: two per multiply-add of a matrix product.

        Softmax, GELU and norms add less than 1 %.
        """
        patches = len(self.bands) * self.window_size**2 * dimensions.dim
        linear = self.tokens * dimensions.dim * (4 * dimensions.attention_dim + 2 * dimensions.mlp_dim)
        attention = 2 * self.tokens**2 * dimensions.attention_dim
        return 2 * (patches + dimensions.depth * (linear + attention))
