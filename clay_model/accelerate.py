"""The same encoder, done faster: what each kind of device does best.

`accelerate` swaps parts of a plain `Encoder` in place; it changes no name, no shape and no formula, and the
tests hold its results to those of the plain path. The parts are in `kernels`; what was measured, and what was
tried without success, is in `docs/performance.md`.
"""

import torch
from torch import Tensor, nn

from clay_model.encoder import Encoder, Layer
from clay_model.kernels.attention import SCALE, headwise_attention
from clay_model.kernels.packed import PackedLinear, packing_works
from clay_model.kernels.patches import PackedPatchEmbeddings
from clay_model.spec import Precision


def accelerate(encoder: Encoder, device: torch.device, precision: Precision) -> None:
    """Replace the encoder's linear maps and attention by the fastest there are for its device.

    On CUDA the plain path stays: its weights are in bf16 already, its attention is PyTorch's flash kernel
    on views of one fused matrix of queries, keys and values, and nothing in it waits for the device.

    Args:
        encoder: An encoder on `device`, its weights in `precision`; changed in place.
        device: Where it runs.
        precision: What its matrix products are done in.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type != "cpu" or not packing_works(dtype):
        return
    encoder.add_module("patch_embeddings", PackedPatchEmbeddings(encoder.patch_embeddings))
    for layer in [module for module in encoder.modules() if isinstance(module, Layer)]:
        _pack_layer(layer, headwise=precision == "bf16")


def _pack_layer(layer: Layer, headwise: bool) -> None:
    """Hand a layer's linear maps to oneDNN and, if `headwise`, its attention to `headwise_attention`."""
    attention, mlp = layer.attention, layer.mlp
    to_qkv = attention.to_qkv.weight
    if headwise:
        to_qkv = _with_scaled_queries(to_qkv)
        attention.kernel = headwise_attention
    attention.add_module("to_qkv", PackedLinear(to_qkv))
    attention.add_module("to_out", PackedLinear(attention.to_out.weight, attention.to_out.bias))
    mlp.add_module("expand", PackedLinear(mlp.expand.weight, mlp.expand.bias, gelu=True))
    mlp.add_module("gelu", nn.Identity())
    mlp.add_module("contract", PackedLinear(mlp.contract.weight, mlp.contract.bias))


def _with_scaled_queries(to_qkv: Tensor) -> Tensor:
    """(3*H*E, D) with the scores' factor in the rows that make queries; exact, being a power of two."""
    queries = len(to_qkv) // 3
    return torch.cat((to_qkv[:queries] * SCALE, to_qkv[queries:]))
