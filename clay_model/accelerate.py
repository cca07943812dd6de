"""Chooses the fastest kernels and the batch size for each kind of device.

`accelerate` replaces parts of a plain encoder in place by those in `kernels`, without changing a name, a
shape or a formula; tests compare its results with the plain path's. Measurements, including failed attempts,
are in `docs/performance-notes.md`.
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
"""Maximum chips per batch; on a large GPU more would only delay a tile's last batch."""

MEMORY_SHARE = 0.6
"""Share of a GPU's free memory to plan with; the rest is for memory that the estimate leaves out."""


def accelerate(encoder: Encoder, device: torch.device, precision: Precision) -> None:
    """Replace the encoder's linear maps and attention by the fastest ones for its device.

    CUDA keeps the plain path: its weights are in bf16 already, its attention is PyTorch's flash kernel on
    views of one fused matrix of queries, keys and values, and nothing in it waits for the device.

    Args:
        encoder: An encoder on `device`, its weights in `precision`; changed in place.
        device: The encoder's device.
        precision: Precision of its matrix products.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type != "cpu":
        return
    if not packing_works(dtype):
        log.warning(
            "PyTorch %s does not multiply packed %s weights here: using the plain path, which is slower",
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
    """Replace a layer's linear maps by oneDNN's and, if `headwise`, its attention by `headwise_attention`."""
    attention, mlp = layer.attention, layer.mlp
    if headwise:
        attention.kernel = headwise_attention
    attention.add_module("to_qkv", PackedLinear(attention.to_qkv.weight, rows=rows))
    attention.add_module("to_out", PackedLinear(attention.to_out.weight, attention.to_out.bias, rows=rows))
    mlp.add_module("expand", PackedLinear(mlp.expand.weight, mlp.expand.bias, rows=rows, gelu=True))
    mlp.add_module("gelu", nn.Identity())
    mlp.add_module("contract", PackedLinear(mlp.contract.weight, mlp.contract.bias, rows=rows))


def auto_batch_size(embedder: "Embedder") -> int:
    """Return the number of chips to pass to `Embedder.encode` at a time.

    On CUDA, as many as fit a share of the currently free memory, at most `LARGEST_BATCH`. This is an
    estimate: callers must still halve the batch if memory runs out. On the CPU 1: larger batches are not
    faster.
    """
    if embedder.device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(embedder.device)
    return fitting_batch(free, embedder.spec, embedder.dimensions, embedder.precision)


def fitting_batch(free: int, spec: ModelSpec, dimensions: Dimensions, precision: Precision) -> int:
    """Return the number of chips whose activations fit a GPU's memory.

    Args:
        free: Bytes of free memory.
        spec: The model.
        dimensions: The network's size.
        precision: Precision of its matrix products.

    Returns:
        1 to `LARGEST_BATCH`.
    """
    width = 2 if precision == "bf16" else 4  # bytes of a number
    # As loaded, normalised, and a group's bands copied; and those of the next batch, which are being copied.
    pixels = 4 * 4 * len(spec.bands) * spec.window_size**2
    stream = 4 * 4 * dimensions.dim  # a token before, inside and after a norm, and its sum, in float32
    attention = 5 * width * dimensions.attention_dim  # queries, keys, values, their mixture, a copy of it
    mlp = 2 * width * dimensions.mlp_dim  # before and after the GELU
    chip = pixels + spec.tokens * (stream + max(attention, mlp))
    return max(1, min(LARGEST_BATCH, int(MEMORY_SHARE * free) // chip))
