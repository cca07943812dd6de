"""The parts of both networks in plain PyTorch: patch embeddings and a pre-norm transformer.

`accelerate` replaces the linear maps and the attention by a device's fastest kernels; tests compare the two.
Parts that only one model has are in that model's folder.

Shapes: B batch, C bands, S pixels along a window's side, P along a patch's, L patch locations, D the width of
a token, N all tokens, H heads, E = 64 the width of a head.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor, nn

from clay_model.model_spec import HEAD_DIM, Dimensions, ModelSpec

AttentionKernel = Callable[[Tensor, int], Tensor]
"""(B, N, 3*H*E) queries, keys and values of H heads side by side → (B, N, H*E)."""


def plain_attention(qkv: Tensor, heads: int) -> Tensor:
    """Apply softmax attention by PyTorch's own kernel.

    Args:
        qkv: (B, N, 3*H*E) queries, keys and values, each with its heads side by side.
        heads: H.

    Returns:
        (B, N, H*E) in the dtype of `qkv`.
    """
    batch, tokens, _ = qkv.shape
    parts = qkv.view(batch, tokens, 3, heads, HEAD_DIM).permute(2, 0, 3, 1, 4)
    query, key, value = parts  # each (B, H, N, E)
    mixed = F.scaled_dot_product_attention(query, key, value)  # (B, H, N, E)
    return mixed.transpose(1, 2).reshape(batch, tokens, heads * HEAD_DIM)  # (B, N, H*E)


class PatchEmbedding(nn.Module):
    """Embeds the patches of some bands: normalises each band, maps each patch linearly, applies a norm.

    Args:
        spec: The model, for the bands' statistics and the patch size.
        bands: Indices of the bands.
        dim: Width of a token, D.
        norm: Applied to the tokens; `nn.Identity()` for none.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: ModelSpec, bands: Sequence[int], dim: int, norm: nn.Module) -> None:
        super().__init__()
        self.bands = list(bands)
        self.patch_size = spec.patch_size
        self.proj = nn.Conv2d(len(bands), dim, kernel_size=spec.patch_size, stride=spec.patch_size)
        self.norm = norm
        for name, values in (("mean", spec.mean), ("deviation", spec.deviation)):
            constant = fixed([values[band] for band in bands]).view(-1, 1, 1)
            self.register_buffer(name, constant, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, S, S) pixels in physical units → (B, L, D) float32."""
        # Views by number: indexing by a list would copy the list to a GPU and wait for it.
        group = torch.stack([pixels[:, band] for band in self.bands], dim=1)  # (B, bands, S, S)
        group = (group - self.mean) / self.deviation
        # A convolution whose stride equals its kernel is a matrix product. CUDA rounds float32 to TF32 in
        # convolutions, unless the whole process is configured otherwise, but not in matrix products.
        patches = group.unflatten(3, (-1, self.patch_size)).unflatten(2, (-1, self.patch_size))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, L, bands * P * P)
        weight = self.proj.weight.flatten(1)  # (D, bands * P * P)
        return self.norm(F.linear(patches.to(weight.dtype), weight, self.proj.bias).float())  # (B, L, D)


class Attention(nn.Module):
    """Pre-norm multi-head self-attention; the residual is added by the caller."""

    def __init__(self, dimensions: Dimensions, *, output_bias: bool) -> None:
        super().__init__()
        self.heads = dimensions.heads
        self.norm = nn.LayerNorm(dimensions.dim)
        self.to_qkv = nn.Linear(dimensions.dim, 3 * dimensions.attention_dim, bias=False)
        self.to_out = nn.Linear(dimensions.attention_dim, dimensions.dim, bias=output_bias)
        self.kernel: AttentionKernel = plain_attention

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) float32 → (B, N, D)."""
        normed = self.norm(tokens).to(self.to_qkv.weight.dtype)  # (B, N, D)
        return self.to_out(self.kernel(self.to_qkv(normed), self.heads))  # (B, N, D)


class FeedForward(nn.Module):
    """Pre-norm two-layer perceptron with the exact (erf) GELU; the residual is added by the caller."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimensions.dim)
        self.expand = nn.Linear(dimensions.dim, dimensions.mlp_dim)
        self.gelu = nn.GELU()
        self.contract = nn.Linear(dimensions.mlp_dim, dimensions.dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) float32 → (B, N, D)."""
        normed = self.norm(tokens).to(self.expand.weight.dtype)  # (B, N, D)
        return self.contract(self.gelu(self.expand(normed)))  # (B, N, D)


class Layer(nn.Module):
    """One transformer layer: attention, then the perceptron, each added to the stream of tokens."""

    def __init__(self, dimensions: Dimensions, *, output_bias: bool) -> None:
        super().__init__()
        self.attention = Attention(dimensions, output_bias=output_bias)
        self.mlp = FeedForward(dimensions)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) float32 → (B, N, D) float32."""
        tokens = tokens + self.attention(tokens)
        return tokens + self.mlp(tokens)


class Transformer(nn.Module):
    """The layers, then a norm. Norms, softmax and the stream of tokens are float32 in either precision.

    Args:
        dimensions: The size of the network.
        output_bias: Whether the output map of each attention has a bias.
    """

    def __init__(self, dimensions: Dimensions, *, output_bias: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(dimensions, output_bias=output_bias) for _ in range(dimensions.depth)
        )
        self.norm = nn.LayerNorm(dimensions.dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) float32 → (B, N, D) float32."""
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens)


def fixed(values: Iterable[float]) -> Tensor:
    """Return (n,) float32 constants that are not learned.

    They are on the CPU even while the weights are on the meta device, where computing them would import
    PyTorch's compiler, which takes a second.
    """
    return torch.tensor(list(values), dtype=torch.float32, device="cpu")
