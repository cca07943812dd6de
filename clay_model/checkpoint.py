"""Lightning checkpoints of Clay v0: checked against the network, and turned into an encoder.

How the file is opened is in `archive`. The decoder is dropped by its prefix and never read from disk;
anything else that is not exactly the encoder's is an error, and one error lists all of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clay_model.archive import EXPECTED, CheckpointError, read_archive
from clay_model.encoder import Encoder
from clay_model.spec import BAND_GROUPS, HEAD_DIM, PATCH_SIZE, SIZES, Dimensions

ENCODER_PREFIX = "model.encoder."
DECODER_PREFIX = "model.decoder."
"""The decoder rebuilds masked patches in training; embeddings do not need it."""

V1_PREFIXES = (
    "model.teacher.",
    "model.proj.",
    "model.mrl.",
    "model.encoder.patch_embedding.fclayer.",
    "model.encoder.patch_embedding.weight_generator.",
)
"""What only later Clay models have: a teacher, or patch embeddings generated from wavelengths."""

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
    content = read_archive(path)
    hyper_parameters = content.get("hyper_parameters")
    settings: Mapping[str, Any] = hyper_parameters if isinstance(hyper_parameters, Mapping) else {}
    state, strangers = _encoder_state(path, content)
    dimensions = _dimensions(path, settings, state)
    _check_weights(path, dimensions, state, strangers)
    sizes = [name for name, named in SIZES.items() if named == dimensions]
    return Checkpoint(
        encoder=_build(dimensions, state),
        model_size=sizes[0] if sizes else "custom",
        untrained=bool(settings.get("untrained", False)),
    )


def _build(dimensions: Dimensions, state: Mapping[str, Tensor]) -> Encoder:
    """The encoder with these weights, which were checked; copies them out of the mapped file."""
    with torch.device("meta"):  # no weights drawn at random only to be replaced
        encoder = Encoder(dimensions)
    names = parameter_names(dimensions)
    # Mapped weights would change, or kill the process, if the file were overwritten while it runs.
    weights = {
        names[name]: tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    encoder.load_state_dict(weights, assign=True)
    return encoder.eval().requires_grad_(False)


def _encoder_state(path: Path, content: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's tensors by their names without prefix, and the names of what has no place here."""
    state = content.get("state_dict")
    if not isinstance(state, Mapping):
        keys = ", ".join(sorted(map(str, content)))[:200] or "nothing"
        raise CheckpointError(f"{path} holds no `state_dict` but {keys}; {EXPECTED}")
    if any(str(name).startswith(V1_PREFIXES) for name in state):
        raise CheckpointError(
            f"{path} is a checkpoint of Clay v1 or later (it has a teacher or a dynamic patch embedding),"
            f" another network; {EXPECTED}"
        )
    encoder: dict[str, Tensor] = {}
    strangers = []
    for name, tensor in state.items():
        if str(name).startswith(ENCODER_PREFIX) and isinstance(tensor, Tensor):
            encoder[name.removeprefix(ENCODER_PREFIX)] = tensor
        elif not str(name).startswith(DECODER_PREFIX):
            strangers.append(f"{name} ({type(tensor).__name__})")
    if not encoder:
        raise CheckpointError(
            f"{path} has no tensor under {ENCODER_PREFIX} among its {len(state)}"
            f" (the first: {', '.join(map(str, list(state)[:3])) or 'none'}); {EXPECTED}"
        )
    return encoder, strangers


def _dimensions(path: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Dimensions:
    """The network's size, from `hyper_parameters` or, where they do not say, from the weights' shapes."""
    size = settings.get("model_size")
    for name, dimensions in SIZES.items():
        if size == name:
            return dimensions
    if size is not None:
        raise CheckpointError(
            f"{path} says model_size {size!r}, expected one of {', '.join(SIZES)}; {EXPECTED}"
        )
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


def _check_weights(
    path: Path, dimensions: Dimensions, state: Mapping[str, Tensor], strangers: list[str]
) -> None:
    """Refuse a state that is not exactly the encoder's, naming everything that differs at once."""
    # A token's encoding is made of eighths of its width, two frequencies each or more.
    if min(dimensions.heads, dimensions.mlp_ratio) < 1 or dimensions.dim < 16 or dimensions.dim % 8:
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
    problems += [f"unexpected {stranger}" for stranger in strangers]
    for name, shape in expected.items():
        if name in state and (problem := _problem(state[name], shape)):
            problems.append(f"{ENCODER_PREFIX}{name} {problem}")
    if problems:
        lines = "\n  ".join(problems)
        raise CheckpointError(
            f"{path} does not fit an encoder of {dimensions} with {PATCH_SIZE}-pixel patches"
            f" ({len(problems)} differences):\n  {lines}\n{EXPECTED}"
        )


def _problem(tensor: Tensor, shape: tuple[int, ...]) -> str:
    """Why a tensor cannot be the parameter of this shape; empty if it can."""
    if tuple(tensor.shape) != shape:
        return f"has shape {tuple(tensor.shape)}, expected {shape}"
    if not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.device.type != "cpu":
        return (
            f"holds {tensor.dtype} ({tensor.layout}, {tensor.device}),"
            " expected floating-point numbers in a plain dense array"
        )
    if bad := int((~torch.isfinite(tensor.float())).sum()):
        return f"holds {bad} numbers that are not finite: its training diverged, or the file is damaged"
    return ""
