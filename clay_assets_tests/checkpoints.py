"""Checkpoints as Lightning writes them, with the recipe's weights."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clay_assets_tests.recipe import GROUP_BANDS, decoder_shapes, encoder_shapes, weight


def encoder_state(model_size: str) -> dict[str, Tensor]:
    """The encoder's part of a `state_dict`, float32."""
    return {name: torch.from_numpy(weight(name, shape)) for name, shape in encoder_shapes(model_size).items()}


def lightning_checkpoint(model_size: str) -> dict[str, Any]:
    """What `Trainer.save_checkpoint(..., weights_only=True)` puts into a file, decoder included.

    Args:
        model_size: `tiny` or `small`.
    """
    decoder = {name: torch.zeros(shape) for name, shape in decoder_shapes(model_size).items()}
    return {
        "epoch": 9,
        "global_step": 1100,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": OrderedDict(encoder_state(model_size) | decoder),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 10, "completed": 9}}}},
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "model_size": model_size,
            "mask_ratio": 0.75,
            "image_size": 512,
            "patch_size": 32,
            "shuffle": False,
            "lr": 1e-4,
            "wd": 0.05,
            "b1": 0.9,
            "b2": 0.95,
            "embeddings_level": "mean",
            "band_groups": dict(GROUP_BANDS),
        },
    }


def write_checkpoint(path: Path, content: object) -> Path:
    """Write a checkpoint file; returns its path."""
    torch.save(content, path)
    return path
