"""Attention on the CPU in bf16: one head at a time, two matrix products and a softmax.

PyTorch's flash kernel for the CPU works in small blocks, which leaves bf16 units half idle. A chip's scores
for one head are 4.7 MB in bf16, so they stay in the last-level cache between the three steps.
"""

import torch
from torch import Tensor

from clay_model.spec import HEAD_DIM

SCALE = HEAD_DIM**-0.5
"""What scores are multiplied by before the softmax: a power of two, so exact in any precision."""


def headwise_attention(qkv: Tensor, heads: int) -> Tensor:
    """Softmax attention whose queries were multiplied by `SCALE` beforehand.

    Args:
        qkv: (B, N, 3*H*E) scaled queries, keys and values, each with its heads side by side.
        heads: H.

    Returns:
        (B, N, H*E) in the dtype of `qkv`.
    """
    batch, tokens, _ = qkv.shape
    query, key, value = qkv.view(batch, tokens, 3, heads, HEAD_DIM).unbind(2)  # each (B, N, H, E)
    mixed = qkv.new_empty(batch, tokens, heads, HEAD_DIM)
    scores = qkv.new_empty(tokens, tokens)  # one buffer for all heads: fresh memory costs page faults
    for chip in range(batch):
        for head in range(heads):
            torch.mm(query[chip, :, head], key[chip, :, head].t(), out=scores)
            torch._softmax(scores, -1, False, out=scores)
            mixed[chip, :, head] = scores @ value[chip, :, head].contiguous()
    return mixed.view(batch, tokens, heads * HEAD_DIM)
