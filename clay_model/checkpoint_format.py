"""How an encoder's parameters are kept in a Lightning checkpoint: the form in which each model says it.

The two formats are in `v0.checkpoint` and `v15.checkpoint`; reading a file by them is in `checkpoint`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from clay_model.model_spec import Dimensions, ModelSpec

EncoderT = TypeVar("EncoderT", bound=nn.Module, covariant=True)

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class CheckpointFormat(Generic[EncoderT]):
    """One model's format. Names are those below `model.encoder.`.

    Attributes:
        spec: The model.
        marks: Beginnings of the names of parameters that only this model's encoder has.
        dropped: Beginnings of the whole names of what embeddings do not need.
        settings: Hyper-parameters that must have these values, where the file names them.
        names: Dimensions → each parameter's name in a checkpoint → our name of it.
        shapes: Dimensions → our name of each parameter, and perhaps others → its shape.
        build: Dimensions and float32 weights by our names → the encoder on the CPU.
    """

    spec: ModelSpec
    marks: tuple[str, ...]
    dropped: tuple[str, ...]
    settings: Mapping[str, object]
    names: Callable[[Dimensions], dict[str, str]]
    shapes: Callable[[Dimensions], Shapes]
    build: Callable[[Dimensions, Mapping[str, Tensor]], EncoderT]


def layer_names(dimensions: Dimensions, names: Mapping[str, str]) -> dict[str, str]:
    """Names of the transformer's parameters in a checkpoint → ours.

    Args:
        dimensions: The network's size.
        names: The same of one layer, without its number.
    """
    numbered = {
        f"transformer.layers.{layer}.{theirs}": f"transformer.layers.{layer}.{ours}"
        for layer in range(dimensions.depth)
        for theirs, ours in names.items()
    }
    last = {name: name for name in ("transformer.norm.weight", "transformer.norm.bias")}
    return numbered | last


def shapes_of(make: Callable[[], nn.Module]) -> Shapes:
    """Shape of each parameter of a network, which is made without weights."""
    with torch.device("meta"):
        return {name: tuple(weight.shape) for name, weight in make().state_dict().items()}
