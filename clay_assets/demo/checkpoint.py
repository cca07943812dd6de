"""A checkpoint in the real file's format with weights that nobody trained.

Here: seeded weights under the names and shapes of the released checkpoint, so that the whole pipeline can run
where the released one cannot be had. The file says of itself that it is untrained.
Not here: reading checkpoints (`clay_model.checkpoint`).
"""

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from clay_assets.demo.noise import Floats
from clay_model.spec import SIZES, ModelSize

MARK = "made by clay_assets.demo"
"""Stands in every file written here and in no other: only such a file is ever replaced."""

RECIPE = 1
"""Raised whenever the same arguments would give other weights."""

_DECODER_DIM = 512


def write_untrained_checkpoint(path: Path, model_size: ModelSize = "small", seed: int = 0) -> bool:
    """Write a Lightning checkpoint of random weights, unless it is there already.

    The same arguments give the same bytes, and so the same embeddings, with one version of PyTorch.

    Args:
        path: Where; its folder is made if it is missing.
        model_size: One of `clay_model.spec.SIZES`; `small` takes 380 MB.
        seed: Another seed, other weights.

    Returns:
        Whether it was written; false if it was there.

    Raises:
        FileExistsError: If another file has that name, perhaps a trained checkpoint. It is left as it is.
    """
    note = f"{MARK}: random weights, never trained (recipe {RECIPE}, {model_size}, seed {seed})"
    if path.exists():
        content = _pickled_text(path)
        if MARK.encode() not in content:
            raise FileExistsError(
                f"{path} was not made by the demo and is kept; name another file for untrained weights"
            )
        if note.encode() in content:
            return False

    import torch  # here, because to find that nothing is to be done takes no torch, which takes seconds

    shapes = _shapes(model_size)
    checkpoint = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": {name: torch.from_numpy(_weight(name, shape, seed)) for name, shape in shapes.items()},
        "hyper_parameters": {"model_size": model_size, "untrained": True, "note": note},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:  # given a path, torch would write its name into the archive
            torch.save(checkpoint, file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # what an interruption leaves
    return True


def _shapes(model_size: ModelSize) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor; of the decoder, which nothing here reads, only the first few."""
    from clay_model.checkpoint import DECODER_PREFIX, ENCODER_PREFIX, parameter_shapes  # imports torch

    dimensions = SIZES[model_size]
    encoder = {ENCODER_PREFIX + name: shape for name, shape in parameter_shapes(dimensions).items()}
    return encoder | {
        f"{DECODER_PREFIX}mask_patch": (_DECODER_DIM,),
        f"{DECODER_PREFIX}enc_to_dec.weight": (_DECODER_DIM, dimensions.dim),
        f"{DECODER_PREFIX}enc_to_dec.bias": (_DECODER_DIM,),
    }


def _weight(name: str, shape: tuple[int, ...], seed: int) -> Floats:
    """A tensor that keeps the activations' scale: matrices by their inputs, norms near 1, biases near 0."""
    key = np.array([zlib.crc32(name.encode()), seed], np.uint64)
    values = np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, np.float32)
    if len(shape) > 1:
        values /= np.float32(np.sqrt(np.prod(shape[1:])))
        return values
    return np.float32(0.02) * values + np.float32(name.endswith("weight"))


def _pickled_text(path: Path) -> bytes:
    """What a checkpoint says of itself, unparsed: a zip archive's `data.pkl`; empty if it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return b"".join(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    except (OSError, zipfile.BadZipFile):
        return b""
