"""How a Lightning checkpoint names an encoder's parameters: one `CheckpointFormat` per model.

The two instances are in `v0.checkpoint` and `v15.checkpoint`; `checkpoint` reads files by them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from clay_model.encoder import Encoder
from clay_model.model_spec import Dimensions, ModelSpec

ModuleT = TypeVar("ModuleT", bound=nn.Module)

Shapes = dict[str, tuple[int, ...]]
"""Name of a parameter → its shape."""


@dataclass(frozen=True)
class CheckpointFormat:
    """One model's format. Names are relative to `model.encoder.`.

    Attributes:
        spec: The model.
        marks: Prefixes of parameters that only this model's encoder has.
        dropped: Prefixes, from the root, of weights that embeddings do not need.
        settings: Required values of those hyper-parameters that the file has.
        names: Dimensions → each parameter's name in a checkpoint → our name for it.
        shapes: Dimensions → our name of each parameter, and perhaps others → its shape.
        build: Dimensions and float32 weights by our names → the encoder on the CPU.
    """

    spec: ModelSpec
    marks: tuple[str, ...]
    dropped: tuple[str, ...]
    settings: Mapping[str, object]
    names: Callable[[Dimensions], dict[str, str]]
    shapes: Callable[[Dimensions], Shapes]
    build: Callable[[Dimensions, Mapping[str, Tensor]], Encoder]

    def shapes_in_file(self, dimensions: Dimensions) -> Shapes:
        """Return each parameter's name in a checkpoint → its shape."""
        ours = self.shapes(dimensions)
        return {theirs: ours[name] for theirs, name in self.names(dimensions).items()}


def transformer_names(dimensions: Dimensions, layer_names: Mapping[str, str]) -> dict[str, str]:
    """Return the names of the transformer's parameters in a checkpoint → ours.

    Args:
        dimensions: The network's size.
        layer_names: The same for one layer, without its prefix.
    """
    numbered = {
        f"transformer.layers.{layer}.{theirs}": f"transformer.layers.{layer}.{ours}"
        for layer in range(dimensions.depth)
        for theirs, ours in layer_names.items()
    }
    return numbered | {name: name for name in ("transformer.norm.weight", "transformer.norm.bias")}


def shapes_of(make: Callable[[], nn.Module]) -> Shapes:
    """Return the shape of each parameter of a network, which is created without weights."""
    with torch.device("meta"):
        return {name: tuple(weight.shape) for name, weight in make().state_dict().items()}


def with_weights(make: Callable[[], ModuleT], weights: Mapping[str, Tensor]) -> ModuleT:
    """Return a network with these weights, without initializing random ones first."""
    with torch.device("meta"):
        module = make()
    module.load_state_dict(weights, assign=True)
    return module
