"""Lightning checkpoints of Clay v0: read, checked, and turned into an encoder.

A checkpoint is a zip archive written by PyTorch. It is read with `weights_only=True`: an archive that
would need to run code to be opened is refused. Its tensors are mapped from the file, so the decoder, which
is not needed, is never read from disk.
"""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clay_model.encoder import Encoder
from clay_model.spec import BAND_GROUPS, HEAD_DIM, PATCH_SIZE, SIZES, Dimensions

ENCODER_PREFIX = "model.encoder."
DECODER_PREFIX = "model.decoder."
"""The decoder rebuilds masked patches in training; embeddings do not need it."""

EXPECTED = (
    "expected a Lightning checkpoint of Clay v0 (.ckpt, a zip archive with `state_dict` and"
    " `hyper_parameters`), such as clay-small-70MT-1100T-10E.ckpt"
)

_LAYER_NAMES = {
    "attention.norm.weight": "0.norm.weight",
    "attention.norm.bias": "0.norm.bias",
    "attention.to_qkv.weight": "0.to_qkv.weight",
    "attention.to_out.weight": "0.to_out.0.weight",
    "attention.to_out.bias": "0.to_out.0.bias",
    "mlp.norm.weight": "1.net.0.weight",
    "mlp.norm.bias": "1.net.0.bias",
    "mlp.expand.weight": "1.net.1.weight",
    "mlp.expand.bias": "1.net.1.bias",
    "mlp.contract.weight": "1.net.4.weight",
    "mlp.contract.bias": "1.net.4.bias",
}
"""Our name of a layer's parameter → its name in a checkpoint (vit-pytorch's numbering)."""


class CheckpointError(ValueError):
    """A file is not a checkpoint that the encoder can be built from; the message says what it is."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's content, checked against the network.

    Attributes:
        encoder: The encoder with the checkpoint's weights, float32, on the CPU.
        model_size: Name of its size, e.g. `small`; `custom` where the dimensions are none of the named ones.
        untrained: Whether the file says that its weights were never trained (a demo's checkpoint does).
    """

    encoder: Encoder
    model_size: str
    untrained: bool


def parameter_names(dimensions: Dimensions) -> dict[str, str]:
    """Name of every encoder parameter in a checkpoint, without `model.encoder.`, → our name of it."""
    names = {
        "latlon_embedding.weight": "place_embedding.weight",
        "latlon_embedding.bias": "place_embedding.bias",
        "time_embedding.weight": "date_embedding.weight",
        "time_embedding.bias": "date_embedding.bias",
    }
    for group in BAND_GROUPS:
        for part in ("proj.weight", "proj.bias", "norm.weight", "norm.bias"):
            names[f"patch_embedding.{group}.{part}"] = f"patch_embeddings.{group}.{part}"
    for layer in range(dimensions.depth):
        for ours, theirs in _LAYER_NAMES.items():
            names[f"transformer.layers.{layer}.{theirs}"] = f"layers.{layer}.{ours}"
    return names | {"transformer.norm.weight": "norm.weight", "transformer.norm.bias": "norm.bias"}


def parameter_shapes(dimensions: Dimensions) -> dict[str, tuple[int, ...]]:
    """Name of every encoder parameter in a checkpoint, without `model.encoder.`, → its shape."""
    with torch.device("meta"):
        ours = Encoder(dimensions).state_dict()
    return {theirs: tuple(ours[name].shape) for theirs, name in parameter_names(dimensions).items()}


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Build the encoder that a checkpoint holds.

    Args:
        path: A local Lightning checkpoint.

    Returns:
        The encoder and what the file says of it.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no checkpoint of Clay v0, needs code to be opened, or if any encoder
            weight is missing, unexpected or of a wrong shape; the message lists all of them.
    """
    path = Path(path)
    content = _read_archive(path)
    hyper_parameters = content.get("hyper_parameters")
    settings: Mapping[str, Any] = hyper_parameters if isinstance(hyper_parameters, Mapping) else {}
    state = _encoder_state(path, content)
    dimensions = _dimensions(path, settings, state)
    _check_weights(path, dimensions, state)

    with torch.device("meta"):
        encoder = Encoder(dimensions)
    names = parameter_names(dimensions)
    encoder.load_state_dict({names[name]: tensor.float() for name, tensor in state.items()}, assign=True)
    _materialise_buffers(encoder)
    sizes = [name for name, named in SIZES.items() if named == dimensions]
    return Checkpoint(
        encoder=encoder.eval().requires_grad_(False),
        model_size=sizes[0] if sizes else "custom",
        untrained=bool(settings.get("untrained", False)),
    )


def _materialise_buffers(encoder: Encoder) -> None:
    """Fill the constants that the checkpoint does not hold, left without storage by the meta device."""
    with torch.device("cpu"):
        constants = Encoder(Dimensions(encoder.dimensions.dim, 0, 1, 1))
    for name, buffer in constants.named_buffers():
        setattr(encoder, name, buffer)


def _read_archive(path: Path) -> Mapping[str, Any]:
    """The archive's content as plain containers and mapped tensors."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: {EXPECTED}")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is {_kind_of(path)}; {EXPECTED}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is a pickle that would have to run code to be opened, which is never done"
            f" ({str(error).splitlines()[0][:200]}); {EXPECTED}, saved with plain containers and tensors"
        ) from None
    except (RuntimeError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is a zip archive that PyTorch cannot read as a checkpoint"
            f" ({str(error).splitlines()[0][:200]}); {EXPECTED}"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; {EXPECTED}")
    return content


def _kind_of(path: Path) -> str:
    """What a file that is no zip archive looks like, for an error message."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    if head.startswith(b"\x80"):
        return "a bare pickle (the format before PyTorch 1.6, or not a checkpoint at all), never loaded"
    if head[:9].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page or XML document, perhaps a download that was refused"
    if head.startswith(b"PK"):
        return "a truncated zip archive, perhaps an interrupted download"
    if b'"__metadata__"' in head or head[8:10] == b'{"':
        return "a safetensors file"
    return f"no zip archive (it begins with {head[:8]!r})"


def _encoder_state(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The encoder's tensors by their names without prefix; decoder tensors are left out by name."""
    state = content.get("state_dict")
    if not isinstance(state, Mapping):
        keys = ", ".join(sorted(map(str, content)))[:200] or "nothing"
        raise CheckpointError(f"{path} holds no `state_dict` but {keys}; {EXPECTED}")
    if any(
        str(name).startswith(("model.teacher.", "model.proj.", "model.encoder.patch_embedding.fcn"))
        for name in state
    ):
        raise CheckpointError(
            f"{path} is a checkpoint of Clay v1 or later (it has a teacher or a dynamic patch embedding),"
            f" another network; {EXPECTED}"
        )
    encoder = {
        name.removeprefix(ENCODER_PREFIX): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and name.startswith(ENCODER_PREFIX) and isinstance(tensor, Tensor)
    }
    strangers = sorted(
        str(name)
        for name, tensor in state.items()
        if not (str(name).startswith((ENCODER_PREFIX, DECODER_PREFIX)) and isinstance(tensor, Tensor))
    )
    if not encoder:
        raise CheckpointError(
            f"{path} has no tensor under {ENCODER_PREFIX} among its {len(state)}"
            f" (the first: {', '.join(map(str, list(state)[:3]))}); {EXPECTED}"
        )
    if strangers:
        raise CheckpointError(
            f"{path} has entries that are neither tensors of {ENCODER_PREFIX} nor of {DECODER_PREFIX}:"
            f" {', '.join(strangers)}; {EXPECTED}"
        )
    return encoder


def _dimensions(path: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Dimensions:
    """The network's size, from `hyper_parameters` or, where they do not say, from the weights' shapes."""
    size = settings.get("model_size")
    if size is not None:
        if size not in SIZES:
            raise CheckpointError(
                f"{path} says model_size {size!r}, expected one of {', '.join(SIZES)}; {EXPECTED}"
            )
        return SIZES[size]
    layers = "transformer.layers."
    numbers = {name.removeprefix(layers).split(".")[0] for name in state if name.startswith(layers)}
    needed = [f"{layers}0.0.to_qkv.weight", f"{layers}0.1.net.1.weight"]
    shapes = [tuple(state[name].shape) for name in needed if name in state]
    if len(shapes) < 2 or any(len(shape) != 2 for shape in shapes):
        raise CheckpointError(
            f"{path} names no model_size in its hyper_parameters, and {' or '.join(needed)}, which would"
            f" tell its size, is missing or no matrix; {EXPECTED}"
        )
    (qkv, dim), (hidden, _) = shapes
    return Dimensions(
        dim=dim, depth=len(numbers), heads=qkv // (3 * HEAD_DIM), mlp_ratio=hidden // max(dim, 1)
    )


def _check_weights(path: Path, dimensions: Dimensions, state: Mapping[str, Tensor]) -> None:
    """Refuse a state that is not exactly the encoder's, naming everything that differs at once."""
    if min(dimensions.dim, dimensions.heads, dimensions.mlp_ratio) < 1 or dimensions.dim % 8:
        raise CheckpointError(
            f"{path}: its weights imply {dimensions}, which is no encoder of Clay v0; {EXPECTED}"
        )
    expected = parameter_shapes(dimensions)
    problems = [
        f"missing {ENCODER_PREFIX}{name} {shape}" for name, shape in expected.items() if name not in state
    ]
    problems += [
        f"unexpected {ENCODER_PREFIX}{name} {tuple(tensor.shape)}"
        for name, tensor in state.items()
        if name not in expected
    ]
    problems += [
        f"{ENCODER_PREFIX}{name} has shape {tuple(state[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    problems += [
        f"{ENCODER_PREFIX}{name} holds {tensor.dtype} ({tensor.layout}, {tensor.device}),"
        " expected floating-point numbers in a plain dense array"
        for name, tensor in state.items()
        if name in expected
        and not (
            tensor.is_floating_point() and tensor.layout is torch.strided and tensor.device.type == "cpu"
        )
    ]
    if problems:
        lines = "\n  ".join(problems)
        raise CheckpointError(
            f"{path} does not fit an encoder of {dimensions} with {PATCH_SIZE}-pixel patches"
            f" ({len(problems)} differences):\n  {lines}\n{EXPECTED}"
        )
