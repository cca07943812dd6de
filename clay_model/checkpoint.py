"""Reads Lightning checkpoints of either model: identifies the model, checks the weights, builds the encoder.

Weights that embeddings do not need are dropped by their prefix and never read from disk. The rest must match
the encoder exactly; otherwise one error lists all differences.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clay_model.archive import EXPECTED, CheckpointError, read_archive
from clay_model.checkpoint_format import CheckpointFormat, Shapes
from clay_model.encoder import Encoder
from clay_model.model_spec import HEAD_DIM, Dimensions, ModelSpec
from clay_model.pickled import Inert
from clay_model.v0.checkpoint import FORMAT as V0_FORMAT
from clay_model.v0.spec import SPEC as V0
from clay_model.v15.checkpoint import FORMAT as V15_FORMAT

FORMATS = (V0_FORMAT, V15_FORMAT)

ENCODER_PREFIX = "model.encoder."

Settings = Mapping[Any, Any]
"""A checkpoint's hyper-parameters."""


@dataclass(frozen=True)
class Description:
    """Description of a checkpoint file.

    Attributes:
        spec: The model.
        model_size: Name of its size, e.g. `small`; `custom-512x6` (dim x depth) for other dimensions.
        dimensions: The network's size.
        untrained: Whether the file says that its weights were never trained (a demo's checkpoint does).
    """

    spec: ModelSpec
    model_size: str
    dimensions: Dimensions
    untrained: bool


@dataclass(frozen=True)
class Checkpoint(Description):
    """A checkpoint whose weights have been checked.

    Attributes:
        encoder: The encoder with the checkpoint's weights, float32, on the CPU.
    """

    encoder: Encoder


def parameter_shapes(dimensions: Dimensions, spec: ModelSpec = V0) -> Shapes:
    """Return the name of every encoder parameter in a checkpoint, without `model.encoder.`, → its shape.

    Args:
        dimensions: The network's size.
        spec: The model.
    """
    return next(form for form in FORMATS if form.spec is spec).shapes_in_file(dimensions)


def describe_checkpoint(path: str | Path) -> Description:
    """Identify a checkpoint's model without reading its weights.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is a checkpoint of neither model.
    """
    return _Content(Path(path)).description


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Build the encoder that a checkpoint holds.

    Args:
        path: A local Lightning checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is a checkpoint of neither model, if its hyper-parameters belong to another use
            of the network, or if any encoder weight is missing, unexpected or of a wrong shape; the message
            lists all of them.
    """
    content = _Content(Path(path))
    content.check_weights()
    return Checkpoint(**vars(content.description), encoder=content.build())


class _Content:
    """An archive's content, identified by its weights' names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = read_archive(path)
        state = content.get("state_dict")
        if not isinstance(state, Mapping):
            keys = ", ".join(sorted(map(str, content)))[:200] or "nothing"
            raise CheckpointError(f"{path} holds no `state_dict` but {keys}; {EXPECTED}")
        settings = _entries(content.get("hyper_parameters"))
        self.format = _format(path, state)
        self._check_settings(settings)
        self.weights: dict[str, Tensor] = {}  # without ENCODER_PREFIX
        self.unexpected: list[str] = []
        for name, tensor in state.items():
            if str(name).startswith(ENCODER_PREFIX) and isinstance(tensor, Tensor):
                self.weights[name.removeprefix(ENCODER_PREFIX)] = tensor
            elif not str(name).startswith(self.format.dropped):
                kind = f"{tensor.name}, never run" if isinstance(tensor, Inert) else type(tensor).__name__
                self.unexpected.append(f"{name} ({kind})")
        spec, dimensions = self.format.spec, self._dimensions(settings)
        sizes = [name for name, named in spec.sizes.items() if named == dimensions]
        size = sizes[0] if sizes else f"custom-{dimensions.dim}x{dimensions.depth}"
        self.description = Description(spec, size, dimensions, bool(settings.get("untrained", False)))

    def _check_settings(self, settings: Settings) -> None:
        """Refuse a network that was trained for other pixels."""
        problems = [
            f"{name} {reprlib.repr(settings[name])},"
            f" expected {dict(expected) if isinstance(expected, Mapping) else expected}"
            for name, expected in self.format.settings.items()
            if name in settings and not _same(settings[name], expected)
        ]
        if problems:
            raise CheckpointError(
                f"{self.path} was trained with {'; '.join(problems)}: its weights fit the network, but not"
                f" what {self.format.spec.title} is given here; {EXPECTED}"
            )

    def _dimensions(self, settings: Settings) -> Dimensions:
        """Return the network's size, from `hyper_parameters` or else from the weights' shapes."""
        spec, size = self.format.spec, settings.get("model_size")
        for name, dimensions in spec.sizes.items():
            if size == name:
                return dimensions
        if size is not None:
            raise CheckpointError(
                f"{self.path} is of {spec.title} and says model_size {reprlib.repr(size)}, expected one of"
                f" {', '.join(spec.sizes)}; {EXPECTED}"
            )
        layers = "transformer.layers."
        numbers = {name.split(".")[2] for name in self.weights if name.startswith(layers)}
        needed = [f"{layers}0.0.to_qkv.weight", f"{layers}0.1.net.1.weight"]
        shapes = [tuple(self.weights[name].shape) for name in needed if name in self.weights]
        if len(shapes) < 2 or any(len(shape) != 2 for shape in shapes):
            raise CheckpointError(
                f"{self.path} names no model_size in its hyper_parameters, and {' or '.join(needed)}, which"
                f" would tell its size, is missing or not a matrix; {EXPECTED}"
            )
        (qkv, dim), (hidden, _) = shapes
        return Dimensions(dim, len(numbers), heads=qkv // (3 * HEAD_DIM), mlp_ratio=hidden // max(dim, 1))

    def check_weights(self) -> None:
        """Refuse weights that are not exactly the encoder's; the error lists all differences."""
        spec, dimensions = self.format.spec, self.description.dimensions
        # Encodings consist of eighths of a token's width, of two frequencies or more each.
        if min(dimensions.heads, dimensions.mlp_ratio) < 1 or dimensions.dim < 16 or dimensions.dim % 8:
            raise CheckpointError(
                f"{self.path}: its weights imply {dimensions}, which is not an encoder of {spec.title};"
                f" {EXPECTED}"
            )
        claimed, size = sum(tensor.nbytes for tensor in self.weights.values()), self.path.stat().st_size
        if claimed > size:  # their copies may exceed the memory
            raise CheckpointError(
                f"{self.path} has {size:,} bytes, and its weights would take {claimed:,}: weights repeat or"
                f" share numbers, expected each to have its own; {EXPECTED}"
            )
        expected = self.format.shapes_in_file(dimensions)
        problems = [
            f"missing {ENCODER_PREFIX}{name} {shape}"
            for name, shape in expected.items()
            if name not in self.weights
        ]
        problems += [
            f"unexpected {ENCODER_PREFIX}{name} {tuple(tensor.shape)}"
            for name, tensor in self.weights.items()
            if name not in expected
        ]
        problems += [f"unexpected {entry}" for entry in self.unexpected]
        for name, shape in expected.items():
            if name in self.weights and (problem := _problem(self.weights[name], shape)):
                problems.append(f"{ENCODER_PREFIX}{name} {problem}")
        if problems:
            lines = "\n  ".join(problems)
            raise CheckpointError(
                f"{self.path} does not fit an encoder of {spec.title} of {dimensions} with"
                f" {spec.patch_size}-pixel patches ({len(problems)} differences):\n  {lines}\n{EXPECTED}"
            )

    def build(self) -> Encoder:
        """Return the encoder with a copy of the weights, which `check_weights` has accepted.

        Weights mapped from the file would change, or kill the process, if the file were overwritten.
        """
        dimensions = self.description.dimensions
        names = self.format.names(dimensions)
        weights = {
            names[name]: tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            for name, tensor in self.weights.items()
        }
        return self.format.build(dimensions, weights).eval().requires_grad_(False)


def _format(path: Path, state: Settings) -> CheckpointFormat:
    """Identify the model by its weights' names."""
    names = [str(name) for name in state]
    for form in FORMATS:
        if any(name.startswith(tuple(ENCODER_PREFIX + mark for mark in form.marks)) for name in names):
            return form
    raise CheckpointError(
        f"{path} has no patch embedding of Clay v0 ({ENCODER_PREFIX}{V0_FORMAT.marks[0]}…) and none of Clay"
        f" v1.5 ({ENCODER_PREFIX}{V15_FORMAT.marks[-1]}…) among its {len(names)} weights (the first:"
        f" {', '.join(names[:3]) or 'none'}); {EXPECTED}"
    )


def _entries(value: object) -> Settings:
    """Return the entries of a mapping or of a similar object; nothing for other objects."""
    if isinstance(value, Inert):
        return value.items
    return value if isinstance(value, Mapping) else {}


def _same(got: object, expected: object) -> bool:
    """Compare a setting; lists equal tuples, and the order of band groups matters."""
    if isinstance(expected, Mapping):
        entries = _entries(got)
        return list(entries) == list(expected) and all(_same(entries[key], expected[key]) for key in expected)
    if isinstance(expected, tuple):
        return isinstance(got, list | tuple) and len(got) == len(expected) and all(map(_same, got, expected))
    return isinstance(got, int | float) and got == expected


def _problem(tensor: Tensor, shape: tuple[int, ...]) -> str:
    """Return why a tensor cannot be the parameter of this shape; empty if it can."""
    if tuple(tensor.shape) != shape:
        return f"has shape {tuple(tensor.shape)}, expected {shape}"
    if not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.device.type != "cpu":
        return (
            f"holds {tensor.dtype} ({tensor.layout}, {tensor.device}),"
            " expected floating-point numbers in a plain dense array"
        )
    if not tensor.sum(dtype=torch.float64).isfinite():  # one pass: the sum is finite only if all are
        bad = int((~torch.isfinite(tensor.float())).sum())
        return f"holds {bad} numbers that are not finite: its training diverged, or the file is damaged"
    return ""
