"""The two models as data, and lookup by name. No PyTorch here."""

from clay_model.model_spec import HEAD_DIM, Dimensions, Level, ModelSpec, Precision
from clay_model.v0.spec import BANDS, CHIP_SIZE, SIZES
from clay_model.v0.spec import SPEC as V0
from clay_model.v15.spec import SPEC as V15

__all__ = [
    "BANDS",
    "CHIP_SIZE",
    "HEAD_DIM",
    "MODELS",
    "SIZES",
    "V0",
    "V15",
    "Dimensions",
    "Level",
    "ModelSpec",
    "Precision",
    "model_of",
    "width_of",
]

MODELS = (V0, V15)


def model_of(name: str) -> tuple[ModelSpec, str]:
    """Split a name into its model and size.

    Args:
        name: As `ModelSpec.model_name` returns it, e.g. `clay-v1.5-large`.

    Returns:
        The model and the size, e.g. `large`; `custom-512x6` for dimensions without a name.

    Raises:
        ValueError: If the name is of neither model.
    """
    for spec in MODELS:
        if name.startswith(f"{spec.name}-"):
            return spec, name.removeprefix(f"{spec.name}-")
    known = " or ".join(spec.model_name("…") for spec in MODELS)
    raise ValueError(f"the model is {name!r}, expected {known}")


def width_of(name: str) -> int:
    """Return the width of a token, D, of a model by its name.

    Raises:
        ValueError: If the name is of neither model, or its size is unknown.
    """
    spec, size = model_of(name)
    if size in spec.sizes:
        return spec.sizes[size].dim
    return int(size.removeprefix("custom-").split("x")[0])
