"""The same encoders, done faster: what each kind of device does best.

`accelerate` swaps parts of a plain encoder in place; it changes no name, no shape and no formula, and the
tests hold its results to those of the plain path. The parts are in `kernels`. How many chips a device does
well to be given at a time is decided here too. What was measured, and what was tried without success, is in
`docs/performance.md`.
"""

import logging
from typing import TYPE_CHECKING

import torch
from torch import nn

from clay_model.encoder import Encoder
from clay_model.kernels.attention import headwise_attention
from clay_model.kernels.packed import PackedLinear, packing_works
from clay_model.kernels.patches import PackedPatchEmbedding
from clay_model.layers import Layer, PatchEmbedding
from clay_model.model_spec import Dimensions, ModelSpec, Precision

if TYPE_CHECKING:
    from clay_model.embed import Embedder

log = logging.getLogger(__name__)

LARGEST_BATCH = 64
"""Chips: on a large GPU more would only make the last batch of a tile wait longer."""

MEMORY_SHARE = 0.6
"""Of a GPU's free memory, what may be planned with; the rest is for what the plan leaves out."""


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
    if device.type != "cpu":
        return
    if not packing_works(dtype):
        log.warning(
            "PyTorch %s does not multiply packed %s weights here: the plain path is used, which is slower",
            torch.__version__,
            precision,
        )
        return
    spec = encoder.spec
    for parent in list(encoder.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, PatchEmbedding):
                packed = PackedPatchEmbedding(part, rows=(spec.window_size // spec.patch_size) ** 2)
                parent.add_module(name, packed)
            elif isinstance(part, Layer):
                _pack_layer(part, headwise=precision == "bf16", rows=spec.tokens)


def _pack_layer(layer: Layer, *, headwise: bool, rows: int) -> None:
    """Hand a layer's linear maps to oneDNN and, if `headwise`, its attention to `headwise_attention`."""
    attention, mlp = layer.attention, layer.mlp
    if headwise:
        attention.kernel = headwise_attention
    attention.add_module("to_qkv", PackedLinear(attention.to_qkv.weight, rows=rows))
    attention.add_module("to_out", PackedLinear(attention.to_out.weight, attention.to_out.bias, rows=rows))
    mlp.add_module("expand", PackedLinear(mlp.expand.weight, mlp.expand.bias, rows=rows, gelu=True))
    mlp.add_module("gelu", nn.Identity())
    mlp.add_module("contract", PackedLinear(mlp.contract.weight, mlp.contract.bias, rows=rows))


def chips_at_once(device: torch.device) -> int | None:
    """How many chips of a batch go through the network together; None for all.

    One on the CPU: its thousand tokens or more fill the matrix units as well as those of eight chips, and its
    activations stay in the caches. A vector then cannot depend on what else was in the batch.
    """
    return 1 if device.type == "cpu" else None


def auto_batch_size(embedder: "Embedder") -> int:
    """How many chips to hand to `Embedder.encode` at a time.

    On CUDA as many as a share of the memory free now holds, up to `LARGEST_BATCH`; an estimate, so callers
    still halve the batch when memory runs out.

    Args:
        embedder: The embedder on its device.

    Returns:
        At least 1; 1 on the CPU, which gains nothing from more.
    """
    if embedder.device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(embedder.device)
    return fitting_batch(free, embedder.spec, embedder.dimensions, embedder.precision)


def fitting_batch(free: int, spec: ModelSpec, dimensions: Dimensions, precision: Precision) -> int:
    """Chips whose activations fit a GPU's memory.

    Args:
        free: Bytes.
        spec: The model.
        dimensions: The network's size.
        precision: What its matrix products are done in.

    Returns:
        1 to `LARGEST_BATCH`.
    """
    width = 2 if precision == "bf16" else 4  # bytes of a number
    # As they came, normalised, and a group's share copied; and the next batch's, which arrive meanwhile.
    pixels = 4 * 4 * len(spec.bands) * spec.window_size**2
    stream = 4 * 4 * dimensions.dim  # a token before, inside and after a norm, and its sum, in float32
    attention = 5 * width * dimensions.attention_dim  # queries, keys, values, their mixture, a copy of it
    mlp = 2 * width * dimensions.mlp_dim  # before and after the GELU
    chip = pixels + spec.tokens * (stream + max(attention, mlp))
    return max(1, min(LARGEST_BATCH, int(MEMORY_SHARE * free) // chip))
