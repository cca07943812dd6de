"""Clay v1.5 as data: bands, statistics, wavelengths, sizes, levels.

Every constant of the network is defined here, with its unit and source. No PyTorch here.

Source of all values: the Clay v1.5 model and its band metadata for Sentinel-2 L2A (Clay-foundation/model,
commit a5790ce, Apache-2.0).
"""

from types import MappingProxyType

from clay_model.model_spec import Dimensions, ModelSpec

WINDOW_SIZE = 256
"""Pixels along a window's side; 10 m each."""

PATCH_SIZE = 8
"""Pixels along a patch's side, and the stride between patches."""

GRID = WINDOW_SIZE // PATCH_SIZE
"""Patches along a window's side."""

PIXEL_METRES = 10.0
"""Side of a pixel on the ground, m; a factor of each patch's position."""

WAVELENGTHS = (0.493, 0.56, 0.665, 0.704, 0.74, 0.783, 0.842, 0.865, 1.61, 2.19)
"""Centre of each band, µm."""

CONTEXT_DIM = 8
"""Numbers at the end of each patch token for week, hour, latitude and longitude, two each."""

WAVE_DIM = 128
"""Width of the tokens that the kernels are generated from."""

WEIGHT_TOKENS = 128
"""Learned tokens before those of the wavelengths."""

WAVE_HEADS = 4
"""Attention heads of the layer that mixes these tokens."""

WAVE_MLP_DIM = 2048
"""Width of that layer's hidden layer."""

KERNEL_SCALE = 0.02
"""Factor of the generated kernels, not of the generated bias."""

SPEC = ModelSpec(
    name="clay-v1.5",
    bands=("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),  # reflectance x 10,000
    mean=(1105.0, 1355.0, 1552.0, 1887.0, 2422.0, 2630.0, 2743.0, 2785.0, 2388.0, 1835.0),
    deviation=(1809.0, 1757.0, 1888.0, 1870.0, 1732.0, 1697.0, 1742.0, 1648.0, 1470.0, 1379.0),
    wavelengths=WAVELENGTHS,
    window_size=WINDOW_SIZE,
    other_windows=True,
    patch_size=PATCH_SIZE,
    tokens=1 + GRID**2,  # the class token, then the patches
    # `large` is the released size. The authors' `tiny` has heads of another width; `base` is the size of v1.
    sizes=MappingProxyType(
        {
            "small": Dimensions(dim=384, depth=6, heads=6, mlp_ratio=2),
            "large": Dimensions(dim=1024, depth=24, heads=16, mlp_ratio=4),
        }
    ),
    levels=MappingProxyType(
        {
            "cls": (),  # the class token
            "mean": (),  # over the patch tokens
            "patch": (GRID, GRID),  # every patch token
        }
    ),
    default_level="cls",
    time_of_day=True,
    preprocessing_version=1,
    licence="Apache-2.0",
)
