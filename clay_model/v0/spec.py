"""Clay v0 as data: bands, statistics, band groups, sizes, levels.

Every constant of the network is defined here, with its unit and source. No PyTorch here.

Source of all values: the Clay v0 model and its training configuration (Clay-foundation/model, v0,
Apache-2.0), and the statistics with which its data module normalises.
"""

from collections.abc import Mapping
from types import MappingProxyType

from clay_model.model_spec import Dimensions, ModelSpec

CHIP_SIZE = 512
"""Pixels along a chip's side; 10 m each."""

PATCH_SIZE = 32
"""Pixels along a patch's side, and the stride between patches."""

GRID = CHIP_SIZE // PATCH_SIZE
"""Patches along a chip's side."""

PATCHES = GRID**2
"""Patches of a chip, for each band group."""

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "vh", "vv", "dem")
"""The bands in the order that the network expects.

B02 to B12: Sentinel-2 surface reflectance x 10,000. vh, vv: Sentinel-1 backscatter, linear power. dem:
metres. vh comes before vv because the v0 chips were stacked in this order; the two bands' statistics below
confirm it. The published band table has the two names swapped.
"""

MEAN = (
    *(1369.03, 1597.68, 1741.10, 2053.58, 2569.82, 2763.01, 2858.43, 2893.86, 2303.00, 1807.79),
    *(0.026, 0.118),
    499.46,
)

DEVIATION = (
    *(2026.96, 2011.88, 2146.35, 2138.96, 2003.27, 1962.45, 2016.38, 1917.12, 1679.88, 1568.06),
    *(0.118, 0.873),
    880.35,
)

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
"""Indices into `BANDS` of the bands that share a patch embedding, in token order."""

EXTRA_TOKENS = 2
"""Tokens after the patches: one for the place, one for the date."""

TOKENS = len(BAND_GROUPS) * PATCHES + EXTRA_TOKENS
"""Tokens of a chip: 1,538."""

SIZES: Mapping[str, Dimensions] = MappingProxyType(
    {
        "tiny": Dimensions(dim=256, depth=4, heads=4, mlp_ratio=2),
        "small": Dimensions(dim=768, depth=12, heads=12, mlp_ratio=4),
        "medium": Dimensions(dim=1024, depth=24, heads=16, mlp_ratio=4),
        "large": Dimensions(dim=1280, depth=32, heads=16, mlp_ratio=4),
    }
)
"""The sizes that Clay v0 defines; the released checkpoint is `small`, 353 GFLOP a chip."""

SPEC = ModelSpec(
    name="clay-v0",
    bands=BANDS,
    mean=MEAN,
    deviation=DEVIATION,
    wavelengths=None,
    window_size=CHIP_SIZE,
    other_windows=False,
    patch_size=PATCH_SIZE,
    tokens=TOKENS,
    sizes=SIZES,
    levels=MappingProxyType(
        {
            "mean": (),  # over all patch tokens
            "patch": (GRID, GRID),  # mean over the band groups
            "group": (len(BAND_GROUPS), GRID, GRID),  # every patch token
        }
    ),
    default_level="mean",
    time_of_day=False,
    preprocessing_version=1,
    licence=None,
)
