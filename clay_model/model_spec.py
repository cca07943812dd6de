"""The form in which a model is described: data that the rest of the package, and its users, go by.

The two descriptions are in `v0.spec` and `v15.spec`; `clay_model.spec` gives both. No PyTorch here: whoever
only needs a band's name or a width need not wait for torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

HEAD_DIM = 64
"""Width of one attention head, in every size of either model."""

Precision = Literal["fp32", "bf16"]
"""The numbers that matrix products are done in."""

Level = Literal["cls", "mean", "patch", "group"]
"""How much of a window one embedding describes; which of them a model has: `ModelSpec.levels`."""


@dataclass(frozen=True)
class Dimensions:
    """The numbers that tell one size of an encoder from another.

    Attributes:
        dim: Width of a token, D.
        depth: Transformer layers.
        heads: Attention heads, `HEAD_DIM` wide each; together they need not be as wide as a token.
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
    """What one model is, whatever its size. There is one instance a model.

    Attributes:
        name: The model's name without its size, e.g. `clay-v0`.
        bands: The bands in the order the network expects.
        mean: Mean of each band over the training chips, in the band's unit.
        deviation: Standard deviation of each band over the training chips, in the band's unit.
        wavelengths: Centre of each band, µm; None where the network does not ask for it.
        window_size: Pixels along the side of the windows that the network was trained on; 10 m each.
        other_windows: Whether the network takes square windows of any whole number of patches.
        patch_size: Pixels along a patch's side, and the stride between patches.
        tokens: Tokens of a window of `window_size`.
        sizes: Name of each size → its dimensions.
        levels: Each level → the shape of a window's embedding before the width of a token.
        default_level: The model's own level.
        time_of_day: Whether the network is told the hour of acquisition, not only its date.
        preprocessing_version: Raised whenever the same pixels, place and time would be turned into other
            network inputs: older vectors are then stale.
        licence: SPDX identifier of the licence of the released weights; None where they have their own.
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
        """What a person calls it, e.g. `Clay v0`."""
        return self.name.replace("clay-", "Clay ")

    def model_name(self, size: str) -> str:
        """The name of a model of this size, e.g. `clay-v0-small`."""
        return f"{self.name}-{size}"

    def embedding_shape(self, level: str, dim: int) -> tuple[int, ...]:
        """Shape of the embedding of a window of `window_size`.

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
        """Floating-point operations to encode one window: two for each multiply-add of a matrix product.

        Softmax, GELU and norms come on top, below 1 % of it.

        Args:
            dimensions: The network's size.
        """
        patches = len(self.bands) * self.window_size**2 * dimensions.dim
        linear = self.tokens * dimensions.dim * (4 * dimensions.attention_dim + 2 * dimensions.mlp_dim)
        attention = 2 * self.tokens**2 * dimensions.attention_dim
        return 2 * (patches + dimensions.depth * (linear + attention))
