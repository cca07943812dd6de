"""Writes a checkpoint in the released format with untrained weights.

The weights are seeded and have the names and shapes of a released checkpoint, so that the pipeline runs
without one. The file says that it is untrained. Not here: reading checkpoints (`clay_model.checkpoint`).
"""

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clay_assets.storage.folder import replacing
from clay_model.spec import V0, ModelSpec


def write_untrained_checkpoint(path: Path, model_size: str = "small", spec: ModelSpec = V0) -> bool:
    """Write a Lightning checkpoint of random weights, unless the file exists.

    With one version of PyTorch, the same model and size give the same bytes, and so the same embeddings.

    Args:
        path: The file; missing folders are created.
        model_size: One of the model's sizes; `small` takes 360 MB for v0 and 39 MB for v1.5.
        spec: The model.

    Returns:
        Whether it was written.
    """
    if path.exists():
        return False

    import torch  # takes seconds, and is not needed if the file exists

    checkpoint = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": {
            name: torch.from_numpy(_weight(name, shape)) for name, shape in _shapes(model_size, spec).items()
        },
        "hyper_parameters": {"model_size": model_size, "untrained": True},
    }
    with replacing(path) as file:  # given a path, torch would write its name into the archive
        torch.save(checkpoint, file)
    return True


def _shapes(model_size: str, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of the encoder."""
    from clay_model.checkpoint import ENCODER_PREFIX, parameter_shapes  # imports torch

    shapes = parameter_shapes(spec.sizes[model_size], spec)
    return {ENCODER_PREFIX + name: shape for name, shape in shapes.items()}


def _weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw a tensor that keeps the scale of activations: matrices by inputs, norms near 1, biases near 0."""
    random = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    values = random.standard_normal(shape, np.float32)
    if len(shape) > 1:
        values /= np.float32(np.sqrt(np.prod(shape[1:])))
        return values
    return np.float32(0.02) * values + np.float32(name.endswith("weight"))
