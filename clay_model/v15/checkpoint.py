"""Names of Clay v1.5's parameters in a Lightning checkpoint and in our encoder; generates its kernels.

Of the released file's 5.16 GB the encoder is 1.2 GB. The rest is the decoder, the frozen teacher of the
training, the map to the teacher's width, and the optimizer's state.
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from clay_model.checkpoint_format import CheckpointFormat, Shapes, shapes_of, transformer_names, with_weights
from clay_model.model_spec import Dimensions
from clay_model.v15.encoder import Encoder
from clay_model.v15.generator import KernelGenerator
from clay_model.v15.spec import PATCH_SIZE, SPEC, WAVELENGTHS, WINDOW_SIZE

_LAYER_NAMES = {
    "0.norm.weight": "attention.norm.weight",
    "0.norm.bias": "attention.norm.bias",
    "0.to_qkv.weight": "attention.to_qkv.weight",
    "0.to_out.weight": "attention.to_out.weight",
    "1.net.0.weight": "mlp.norm.weight",
    "1.net.0.bias": "mlp.norm.bias",
    "1.net.1.weight": "mlp.expand.weight",
    "1.net.1.bias": "mlp.expand.bias",
    "1.net.3.weight": "mlp.contract.weight",
    "1.net.3.bias": "mlp.contract.bias",
}

_GENERATOR = "generator."
_GENERATOR_MODULES = {
    "fclayer.l1": "first",
    "fclayer.l2": "second",
    "weight_generator.fc_weight": "to_kernels",
    "weight_generator.fc_bias": "to_bias",
}
_MIXER_PARAMETERS = (
    *("self_attn.in_proj_weight", "self_attn.in_proj_bias"),
    *("self_attn.out_proj.weight", "self_attn.out_proj.bias"),
    *("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"),
    *("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"),
)


def _names(dimensions: Dimensions) -> dict[str, str]:
    generator = {
        "weight_generator.weight_tokens": "weight_tokens",
        "weight_generator.bias_token": "bias_token",
    }
    for theirs, ours in _GENERATOR_MODULES.items():
        generator |= {f"{theirs}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}
    for part in _MIXER_PARAMETERS:
        generator[f"weight_generator.encoder.layers.0.{part}"] = f"mixer.{part}"
    names = {"cls_token": "class_token"}
    names |= {f"patch_embedding.{theirs}": _GENERATOR + ours for theirs, ours in generator.items()}
    return names | transformer_names(dimensions, _LAYER_NAMES)


def _shapes(dimensions: Dimensions) -> Shapes:
    generator = shapes_of(lambda: KernelGenerator(dimensions.dim))
    return shapes_of(lambda: Encoder(dimensions)) | {
        _GENERATOR + name: shape for name, shape in generator.items()
    }


@torch.no_grad()
def _build(dimensions: Dimensions, weights: Mapping[str, Tensor]) -> Encoder:
    """Return the encoder, with kernels generated for Sentinel-2's wavelengths."""
    split: dict[bool, dict[str, Tensor]] = {True: {}, False: {}}
    for name, weight in weights.items():
        split[name.startswith(_GENERATOR)][name.removeprefix(_GENERATOR)] = weight
    kernels, bias = with_weights(lambda: KernelGenerator(dimensions.dim), split[True]).eval()(WAVELENGTHS)
    embedding = {"patch_embedding.proj.weight": kernels, "patch_embedding.proj.bias": bias}
    return with_weights(lambda: Encoder(dimensions), split[False] | embedding)


FORMAT = CheckpointFormat(
    spec=SPEC,
    marks=("cls_token", "patch_embedding.fclayer.", "patch_embedding.weight_generator."),
    dropped=(
        "model.decoder.",  # reconstructs masked patches in training
        "model.teacher.",  # provides the training's targets
        "model.proj.",  # maps the class token to the teacher's width
        "model.mrl.",  # the same for its first numbers only, in an earlier training
    ),
    settings=MappingProxyType({"image_size": WINDOW_SIZE, "patch_size": PATCH_SIZE}),
    names=_names,
    shapes=_shapes,
    build=_build,
)
