"""The two models as data, and which of them a name means. No PyTorch here."""

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
    """The model and the size that a name means.

    Args:
        name: As `ModelSpec.model_name` makes it, e.g. `clay-v1.5-large`.

    Returns:
        The model's description and the size, e.g. `large`, or `custom-512x6` of dimensions without a name.

    Raises:
        ValueError: If the name is of neither model.
    """
    for spec in MODELS:
        if name.startswith(f"{spec.name}-"):
            return spec, name.removeprefix(f"{spec.name}-")
    known = " or ".join(spec.model_name("…") for spec in MODELS)
    raise ValueError(f"the model is {name!r}, expected {known}")


def width_of(name: str) -> int:
    """Width of a token, D, of the model that a name means.

    Args:
        name: As `model_of` takes it.

    Raises:
        ValueError: If the name is of neither model, or its size is unknown.
    """
    spec, size = model_of(name)
    if size in spec.sizes:
        return spec.sizes[size].dim
    return int(size.removeprefix("custom-").split("x")[0])
