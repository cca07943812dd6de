"""Lightning checkpoints of either model: told apart by their weights, checked, and turned into an encoder.

How the file is opened is in `archive`, what each model's parameters are called in `v0.checkpoint` and
`v15.checkpoint`. What embeddings do not need is dropped by its prefix and never read from disk; anything else
that is not exactly the encoder's is an error, and one error lists all of it.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clay_model.archive import EXPECTED, CheckpointError, read_archive
from clay_model.checkpoint_format import CheckpointFormat
from clay_model.encoder import Encoder
from clay_model.model_spec import HEAD_DIM, Dimensions, ModelSpec
from clay_model.pickled import Inert
from clay_model.v0.checkpoint import FORMAT as V0_FORMAT
from clay_model.v0.spec import SPEC as V0
from clay_model.v15.checkpoint import FORMAT as V15_FORMAT

Format = CheckpointFormat[Encoder]

FORMATS: tuple[Format, ...] = (V0_FORMAT, V15_FORMAT)

ENCODER_PREFIX = "model.encoder."


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's content, checked against the network.

    Attributes:
        encoder: The encoder with the checkpoint's weights, float32, on the CPU.
        model_size: Name of its size, e.g. `small`; `custom-512x6` (dim x depth) where it has none.
        untrained: Whether the file says that its weights were never trained (a demo's checkpoint does).
    """

    encoder: Encoder
    model_size: str
    untrained: bool


def parameter_shapes(dimensions: Dimensions, spec: ModelSpec = V0) -> dict[str, tuple[int, ...]]:
    """Name of every encoder parameter in a checkpoint, without `model.encoder.`, → its shape.

    Args:
        dimensions: The network's size.
        spec: The model.
    """
    return _shapes(next(form for form in FORMATS if form.spec is spec), dimensions)


def _shapes(form: Format, dimensions: Dimensions) -> dict[str, tuple[int, ...]]:
    ours = form.shapes(dimensions)
    return {theirs: ours[name] for theirs, name in form.names(dimensions).items()}


@dataclass(frozen=True)
class Description:
    """What a checkpoint file is, told without copying a weight.

    Attributes:
        spec: The model.
        size: Name of its size, e.g. `small`; dimensions that have no name are `custom-512x6`, dim x depth.
        dimensions: The network's size.
        untrained: Whether the file says that its weights were never trained.
    """

    spec: ModelSpec
    size: str
    dimensions: Dimensions
    untrained: bool


def describe_checkpoint(path: str | Path) -> Description:
    """Tell which model a checkpoint is; its weights are not read.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is a checkpoint of neither model.
    """
    path = Path(path)
    return _describe(path, read_archive(path)).description


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Build the encoder that a checkpoint holds.

    Args:
        path: A local Lightning checkpoint.

    Returns:
        The encoder and what the file says of it.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is a checkpoint of neither model, if its hyper-parameters are those of another
            use of the network, or if any encoder weight is missing, unexpected or of a wrong shape; the
            message lists all of them.
    """
    path = Path(path)
    found = _describe(path, read_archive(path))
    dimensions = found.description.dimensions
    _check_weights(path, found.form, dimensions, found.weights, found.strangers)
    return Checkpoint(
        encoder=_build(found.form, dimensions, found.weights),
        model_size=found.description.size,
        untrained=found.description.untrained,
    )


@dataclass(frozen=True)
class _Described:
    """An archive's content by its parts, not checked yet."""

    form: Format
    description: Description
    weights: Mapping[str, Tensor]
    strangers: list[str]


def _describe(path: Path, content: Mapping[str, Any]) -> _Described:
    settings = _entries(content.get("hyper_parameters"))
    state = content.get("state_dict")
    if not isinstance(state, Mapping):
        keys = ", ".join(sorted(map(str, content)))[:200] or "nothing"
        raise CheckpointError(f"{path} holds no `state_dict` but {keys}; {EXPECTED}")
    form = _format(path, state)
    _check_settings(path, form, settings)
    weights, strangers = _encoder_state(form, state)
    dimensions = _dimensions(path, form, settings, weights)
    sizes = [name for name, named in form.spec.sizes.items() if named == dimensions]
    size = sizes[0] if sizes else f"custom-{dimensions.dim}x{dimensions.depth}"
    untrained = bool(settings.get("untrained", False))
    return _Described(form, Description(form.spec, size, dimensions, untrained), weights, strangers)


def _build(form: Format, dimensions: Dimensions, state: Mapping[str, Tensor]) -> Encoder:
    """The encoder with these weights, which were checked; copies them out of the mapped file."""
    names = form.names(dimensions)
    # Mapped weights would change, or kill the process, if the file were overwritten while it runs.
    weights = {
        names[name]: tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    return form.build(dimensions, weights).eval().requires_grad_(False)


def _entries(value: object) -> Mapping[Any, Any]:
    """The entries of a mapping, or of an object that stands for one; none of anything else."""
    if isinstance(value, Inert):
        return value.items
    return value if isinstance(value, Mapping) else {}


def _format(path: Path, state: Mapping[Any, Any]) -> Format:
    """Which model the weights are of."""
    names = [str(name) for name in state]
    for form in FORMATS:
        if any(name.startswith(tuple(ENCODER_PREFIX + mark for mark in form.marks)) for name in names):
            return form
    raise CheckpointError(
        f"{path} has no patch embedding of Clay v0 ({ENCODER_PREFIX}{V0_FORMAT.marks[0]}…) and none of Clay"
        f" v1.5 ({ENCODER_PREFIX}{V15_FORMAT.marks[-1]}…) among its {len(names)} weights (the first:"
        f" {', '.join(names[:3]) or 'none'}); {EXPECTED}"
    )


def _check_settings(path: Path, form: Format, settings: Mapping[Any, Any]) -> None:
    """Refuse a network that was trained for other pixels than it would be given."""
    problems = [
        f"{name} {reprlib.repr(settings[name])}, expected {_plain(wanted)}"
        for name, wanted in form.settings.items()
        if name in settings and not _same(settings[name], wanted)
    ]
    if problems:
        raise CheckpointError(
            f"{path} was trained with {'; '.join(problems)}: its weights fit the network, but not what"
            f" {form.spec.title} is given here; {EXPECTED}"
        )


def _same(got: object, wanted: object) -> bool:
    """Whether a setting is the one that is wanted; lists and tuples are alike, the order of groups counts."""
    if isinstance(wanted, Mapping):
        entries = _entries(got)
        return list(entries) == list(wanted) and all(_same(entries[key], wanted[key]) for key in wanted)
    if isinstance(wanted, tuple):
        return isinstance(got, list | tuple) and len(got) == len(wanted) and all(map(_same, got, wanted))
    return isinstance(got, int | float) and got == wanted


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _encoder_state(form: Format, state: Mapping[Any, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's tensors by their names without prefix, and the names of what has no place here."""
    encoder: dict[str, Tensor] = {}
    strangers = []
    for name, tensor in state.items():
        if str(name).startswith(ENCODER_PREFIX) and isinstance(tensor, Tensor):
            encoder[name.removeprefix(ENCODER_PREFIX)] = tensor
        elif not str(name).startswith(form.dropped):
            kind = f"{tensor.name}, never run" if isinstance(tensor, Inert) else type(tensor).__name__
            strangers.append(f"{name} ({kind})")
    return encoder, strangers


def _dimensions(
    path: Path, form: Format, settings: Mapping[Any, Any], state: Mapping[str, Tensor]
) -> Dimensions:
    """The network's size, from `hyper_parameters` or, where they do not say, from the weights' shapes."""
    size = settings.get("model_size")
    for name, dimensions in form.spec.sizes.items():
        if size == name:
            return dimensions
    if size is not None:
        raise CheckpointError(
            f"{path} is of {form.spec.title} and says model_size {reprlib.repr(size)}, expected one of"
            f" {', '.join(form.spec.sizes)}; {EXPECTED}"
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
    path: Path, form: Format, dimensions: Dimensions, state: Mapping[str, Tensor], strangers: list[str]
) -> None:
    """Refuse a state that is not exactly the encoder's, naming everything that differs at once."""
    # The encodings are made of eighths of a token's width, two frequencies each or more.
    if min(dimensions.heads, dimensions.mlp_ratio) < 1 or dimensions.dim < 16 or dimensions.dim % 8:
        raise CheckpointError(
            f"{path}: its weights imply {dimensions}, which is no encoder of {form.spec.title}; {EXPECTED}"
        )
    expected = _shapes(form, dimensions)
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
            f"{path} does not fit an encoder of {form.spec.title} of {dimensions} with"
            f" {form.spec.patch_size}-pixel patches ({len(problems)} differences):\n  {lines}\n{EXPECTED}"
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
    if not tensor.sum(dtype=torch.float64).isfinite():  # one number tells, and a pass is all it takes
        bad = int((~torch.isfinite(tensor.float())).sum())
        return f"holds {bad} numbers that are not finite: its training diverged, or the file is damaged"
    return ""
