"""A checkpoint in the real file's format with weights that were never trained.

Seeded weights under the names and shapes of a released checkpoint, so that the whole pipeline runs without
one. The file says of itself that it is untrained. Not here: reading checkpoints (`clay_model.checkpoint`).
"""

import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clay_model.spec import V0, ModelSpec


def write_untrained_checkpoint(path: Path, model_size: str = "small", spec: ModelSpec = V0) -> bool:
    """Write a Lightning checkpoint of random weights, unless a file of that name exists.

    The same size gives the same bytes, and so the same embeddings, with one version of PyTorch.

    Args:
        path: Where; its folder is made if it is missing.
        model_size: One of the model's sizes; `small` of v0 takes 360 MB, of v1.5 39 MB.
        spec: The model.

    Returns:
        Whether it was written; an existing file is kept as it is.
    """
    if path.exists():
        return False

    import torch  # takes seconds, and is not needed where the file exists

    checkpoint = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": {
            name: torch.from_numpy(_weight(name, shape)) for name, shape in _shapes(model_size, spec).items()
        },
        "hyper_parameters": {"model_size": model_size, "untrained": True},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:  # given a path, torch would write its name into the archive
            torch.save(checkpoint, file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # of an interrupted write
    return True


def _shapes(model_size: str, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of the encoder."""
    from clay_model.checkpoint import ENCODER_PREFIX, parameter_shapes  # imports torch

    shapes = parameter_shapes(spec.sizes[model_size], spec)
    return {ENCODER_PREFIX + name: shape for name, shape in shapes.items()}


def _weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A tensor that keeps the activations' scale: matrices by their inputs, norms near 1, biases near 0."""
    random = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    values = random.standard_normal(shape, np.float32)
    if len(shape) > 1:
        values /= np.float32(np.sqrt(np.prod(shape[1:])))
        return values
    return np.float32(0.02) * values + np.float32(name.endswith("weight"))
