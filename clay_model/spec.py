"""What Clay v0 is, in numbers: bands, statistics, band groups, sizes.

Every constant of the network stands here once, with its unit and where it comes from.
No PyTorch in this module: whoever only needs a band's name or a width need not wait for torch.

Source of all values: the Clay v0 model and its training configuration (Clay-foundation/model, v0,
Apache-2.0), and the statistics its data module normalises with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

CHIP_SIZE = 512
"""Pixels along a chip's side; 10 m each."""

PATCH_SIZE = 32
"""Pixels along a patch's side, and the stride between patches."""

GRID = CHIP_SIZE // PATCH_SIZE
"""Patches along a chip's side."""

PATCHES = GRID**2
"""Patches of a chip, for each band group."""

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "vh", "vv", "dem")
"""The bands in the order the network expects.

B02 to B12: Sentinel-2 surface reflectance x 10,000. vh, vv: Sentinel-1 backscatter, linear power.
dem: metres. vh stands before vv because the v0 chips were stacked so and the two bands'
statistics below fit that order; the published band table has the two names swapped.
"""

MEAN = (
    *(1369.03, 1597.68, 1741.10, 2053.58, 2569.82, 2763.01, 2858.43, 2893.86, 2303.00, 1807.79),
    *(0.026, 0.118),
    499.46,
)
"""Mean of each of `BANDS` over the training chips, in the band's unit."""

DEVIATION = (
    *(2026.96, 2011.88, 2146.35, 2138.96, 2003.27, 1962.45, 2016.38, 1917.12, 1679.88, 1568.06),
    *(0.118, 0.873),
    880.35,
)
"""Standard deviation of each of `BANDS` over the training chips, in the band's unit."""

BAND_GROUPS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "rgb": (2, 1, 0),
        "rededge": (3, 4, 5, 7),
        "nir": (6,),
        "swir": (8, 9),
        "sar": (10, 11),
        "dem": (12,),
    }
)
"""Indices into `BANDS` of the bands that share a patch embedding, in the order of the tokens."""

EXTRA_TOKENS = 2
"""Tokens after the patches: one for the place, one for the date."""

TOKENS = len(BAND_GROUPS) * PATCHES + EXTRA_TOKENS
"""Tokens of a chip: 1,538."""

HEAD_DIM = 64
"""Width of one attention head, in every size."""

PREPROCESSING_VERSION = 1
"""Raised whenever the same chip would be turned into other network inputs: older vectors are then stale."""


@dataclass(frozen=True)
class Dimensions:
    """The numbers that tell one size of the encoder from another.

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

    @property
    def flops(self) -> int:
        """Floating-point operations to encode one chip: two for each multiply-add of a matrix product.

        353e9 for `small`. Softmax, GELU and norms come on top, below 1 % of it.
        """
        patches = PATCHES * len(BANDS) * PATCH_SIZE**2 * self.dim
        linear = TOKENS * self.dim * (4 * self.attention_dim + 2 * self.mlp_dim)
        attention = 2 * TOKENS**2 * self.attention_dim
        return 2 * (patches + self.depth * (linear + attention))


ModelSize = Literal["tiny", "small", "medium", "large"]

SIZES: Mapping[ModelSize, Dimensions] = MappingProxyType(
    {
        "tiny": Dimensions(dim=256, depth=4, heads=4, mlp_ratio=2),
        "small": Dimensions(dim=768, depth=12, heads=12, mlp_ratio=4),
        "medium": Dimensions(dim=1024, depth=24, heads=16, mlp_ratio=4),
        "large": Dimensions(dim=1280, depth=32, heads=16, mlp_ratio=4),
    }
)
"""The sizes Clay v0 was defined in; the released checkpoint is `small`."""

Level = Literal["mean", "patch", "group"]
"""How much of a chip one embedding describes; shapes: `embedding_shape`."""

LEVELS: tuple[Level, ...] = get_args(Level)

Precision = Literal["fp32", "bf16"]
"""The numbers that matrix products are done in."""


def embedding_shape(level: Level, dim: int) -> tuple[int, ...]:
    """Shape of one chip's embedding.

    Args:
        level: `mean` over all patch tokens; `patch`: mean over the band groups; `group`: every patch token.
        dim: Width of a token, D.

    Returns:
        (D,) for `mean`, (16, 16, D) for `patch`, (6, 16, 16, D) for `group`.

    Raises:
        ValueError: If the level is none of the three.
    """
    shapes: dict[Level, tuple[int, ...]] = {
        "mean": (dim,),
        "patch": (GRID, GRID, dim),
        "group": (len(BAND_GROUPS), GRID, GRID, dim),
    }
    if level not in shapes:
        raise ValueError(f"level is {level!r}, expected one of {', '.join(LEVELS)}")
    return shapes[level]
