"""Checkpoints in Lightning's format, with the recipe's weights."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clay_assets_tests.recipe import (
    GROUP_BANDS,
    decoder_shapes,
    encoder_shapes,
    encoder_shapes_v15,
    weight,
)


def encoder_state(model_size: str) -> dict[str, Tensor]:
    """The encoder's entries of a `state_dict`, float32."""
    return {name: torch.from_numpy(weight(name, shape)) for name, shape in encoder_shapes(model_size).items()}


def lightning_checkpoint(model_size: str, *, untrained: bool = False) -> dict[str, Any]:
    """The content that `Trainer.save_checkpoint(..., weights_only=True)` writes, including the decoder.

    Args:
        model_size: `tiny`, `small`, or `custom`, which the file does not name.
        untrained: Whether the file marks its weights as untrained.
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
        }
        | ({"untrained": True} if untrained else {})
        | ({} if model_size == "custom" else {"model_size": model_size}),
    }


def checkpoint_stub(dim: int, *, untrained: bool = False) -> dict[str, Any]:
    """A checkpoint of Clay v0 with only the keys that determine its size: it can be described, not loaded.

    Args:
        dim: Width of a token; with its one layer the model is called `custom-{dim}x1`.
        untrained: Whether the file marks its weights as untrained.
    """
    layer = "model.encoder.transformer.layers.0"
    return {
        "state_dict": {
            "model.encoder.patch_embedding.rgb.norm.bias": torch.zeros(1),
            f"{layer}.0.to_qkv.weight": torch.zeros(3 * 64, dim),
            f"{layer}.1.net.1.weight": torch.zeros(dim, dim),
        },
        "hyper_parameters": {"untrained": True} if untrained else {},
    }


def encoder_state_v15(model_size: str) -> dict[str, Tensor]:
    """The entries of Clay v1.5's encoder in a `state_dict`, float32."""
    shapes = encoder_shapes_v15(model_size)
    return {name: torch.from_numpy(weight(name, shape)) for name, shape in shapes.items()}


def lightning_checkpoint_v15(model_size: str, others: int = 8, *, untrained: bool = False) -> dict[str, Any]:
    """A training checkpoint of Clay v1.5 by Lightning: encoder, decoder, teacher and optimizer.

    Args:
        model_size: `small`, `large`, or `custom`, which the file does not name.
        others: Side of the square matrices of the decoder, of the teacher, of the map to its width and of the
            optimizer's state, which are 1.2, 1.2, 0.004 and 2.6 GB in the released file.
        untrained: Whether the file marks its weights as untrained.
    """
    rest = ("decoder.enc_to_dec.weight", "teacher.blocks.0.attn.qkv.weight", "proj.weight")
    return {
        "epoch": 76,
        "global_step": 1100,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict(
            encoder_state_v15(model_size) | {f"model.{name}": torch.zeros(others, others) for name in rest}
        ),
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(others, others)}}}
        ],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "mask_ratio": 0.7,
            "norm_pix_loss": False,
            "patch_size": 8,
            "shuffle": True,
            "teacher": "vit_large_patch14_reg4_dinov2.lvd142m",
            "dolls": [16, 32, 64, 128, 256, 768, 1024],
            "lr": 5e-6,
        }
        | ({"untrained": True} if untrained else {})
        | ({} if model_size == "custom" else {"model_size": model_size}),
    }


def write_checkpoint(path: Path, content: object) -> Path:
    """Write a checkpoint file; returns its path."""
    torch.save(content, path)
    return path
