"""Attention on the CPU in bf16: one head at a time, two matrix products with an exponential between them.

PyTorch's flash kernel for the CPU works in small blocks, which leaves bf16 units half idle. The scores of one
head are 4.7 MB in bf16 for a chip of Clay v0 and 2.1 MB for a window of Clay v1.5, so they stay in the
last-level cache between steps.

A softmax subtracts each row's maximum only to keep its exponentials in range. Here the exponentials are
computed without it, in one pass instead of three, and each row is divided by its sum at the end, when it is
64 wide instead of a thousand or more. The sums show whether a head left the range; if so, it is computed
again with the softmax. Both round scores to bf16, as autocast did in the network's training.
"""

import math

import torch
from torch import Tensor

from clay_model.model_spec import HEAD_DIM

SCALE = HEAD_DIM**-0.5
"""Factor from a query times a key to a score."""

SMALLEST_SUM, LARGEST_SUM = 2.0**-90, 2.0**64
"""Range of a row's sum of exponentials within which no precision is lost.

The smallest normal number of bf16 is 2^-126: even if all 2^12 terms of a row underflow, they are below 2^-24
of the smallest sum. The largest is almost 2^128: with the largest sum, values of up to 2^63 fit.
"""


def headwise_attention(qkv: Tensor, heads: int) -> Tensor:
    """Apply softmax attention head by head; a replacement for `layers.plain_attention`.

    Args:
        qkv: (B, N, 3*H*E) bf16 queries, keys and values on the CPU, each with its heads side by side.
        heads: H.

    Returns:
        (B, N, H*E) in the dtype of `qkv`.
    """
    batch, tokens, _ = qkv.shape
    mixed = qkv.new_empty(batch, tokens, heads, HEAD_DIM)
    # One buffer for the scores of all heads stays cached; fresh memory would cause page faults.
    scores = qkv.new_empty(tokens, tokens)
    weighted = qkv.new_empty(heads, tokens, HEAD_DIM)
    sums = qkv.new_empty(heads, tokens, 1)
    for chip in range(batch):
        parts = qkv[chip].view(tokens, 3, heads, HEAD_DIM).permute(1, 2, 0, 3)
        query, key, value = parts  # each (H, N, E)
        value = value.contiguous()  # strided values would halve the rate of their product
        for head, (q, k, v) in enumerate(zip(query, key, value, strict=True)):
            torch.addmm(scores, q, k.t(), beta=0, alpha=SCALE * math.log2(math.e), out=scores)
            torch.sum(scores.exp2_(), dim=1, keepdim=True, out=sums[head])
            torch.mm(scores, v, out=weighted[head])
        for head in _heads_out_of_range(sums):
            torch.addmm(scores, query[head], key[head].t(), beta=0, alpha=SCALE, out=scores)
            torch.mm(torch.softmax(scores, dim=1), value[head], out=weighted[head])
            sums[head] = 1
        torch.div(weighted.transpose(0, 1), sums.transpose(0, 1), out=mixed[chip])
    return mixed.view(batch, tokens, heads * HEAD_DIM)


def _heads_out_of_range(sums: Tensor) -> list[int]:
    """Return the heads with a row whose sum of exponentials, (H, N, 1), left the range or is NaN."""
    smallest, largest = sums.flatten(1).aminmax(dim=1)
    good = (smallest >= SMALLEST_SUM) & (largest <= LARGEST_SUM)
    return (~good).nonzero().flatten().tolist()
