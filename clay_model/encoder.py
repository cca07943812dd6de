"""The Clay v0 encoder, top to bottom.

A masked autoencoder's encoder, used without masking. What is unusual about it:

- One patch embedding for each of six band groups: a chip gives 6 x 256 tokens, not 256.
- Position and band-group encodings are fixed and not in the checkpoint (see `encodings`).
- Place and date enter as two extra tokens at the *end* of the sequence.

This is the plain path, in the terms of the description; `accelerate` replaces its linear maps and
attention by what a given device does fastest, and the tests hold the two together.

Shapes: B batch, C the 13 bands, G the 6 band groups, L the 256 patch locations, D the width of a token,
N = G * L + 2 all tokens, H heads, E = 64 the width of a head.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor, nn

from clay_model.encodings import token_encoding
from clay_model.spec import BAND_GROUPS, DEVIATION, GRID, HEAD_DIM, MEAN, PATCH_SIZE, Dimensions

AttentionKernel = Callable[[Tensor, int], Tensor]
"""(B, N, 3*H*E) queries, keys and values of H heads side by side → (B, N, H*E)."""


def plain_attention(qkv: Tensor, heads: int) -> Tensor:
    """Softmax attention by PyTorch's own kernel.

    Args:
        qkv: (B, N, 3*H*E) queries, keys and values, each with its heads side by side.
        heads: H.

    Returns:
        (B, N, H*E) in the dtype of `qkv`.
    """
    batch, tokens, _ = qkv.shape
    query, key, value = qkv.view(batch, tokens, 3, heads, HEAD_DIM).permute(
        2, 0, 3, 1, 4
    )  # each (B, H, N, E)
    mixed = F.scaled_dot_product_attention(query, key, value)  # (B, H, N, E)
    return mixed.transpose(1, 2).reshape(batch, tokens, heads * HEAD_DIM)  # (B, N, H*E)


class PatchEmbedding(nn.Module):
    """Tokens of one band group: a linear map of each 32 x 32 patch, then a norm."""

    def __init__(self, bands: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.bands = list(bands)
        self.proj = nn.Conv2d(len(bands), dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)
        self.norm = nn.LayerNorm(dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, 512, 512) normalised pixels → (B, L, D)."""
        # Views by number: indexing by a list would copy the list to a GPU and wait for it.
        group = torch.stack([pixels[:, band] for band in self.bands], dim=1)  # (B, bands, 512, 512)
        # A convolution whose stride is its kernel, as the matrix product that it is: PyTorch lets CUDA round
        # float32 to TF32 in convolutions, unless told otherwise for the whole process, but not in products.
        patches = group.unflatten(3, (GRID, PATCH_SIZE)).unflatten(2, (GRID, PATCH_SIZE))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, L, bands * 32 * 32)
        weight = self.proj.weight.flatten(1)  # (D, bands * 32 * 32)
        return self.norm(F.linear(patches.to(weight.dtype), weight, self.proj.bias).float())  # (B, L, D)


class PatchEmbeddings(nn.ModuleDict):
    """The patch embeddings of all band groups, by the group's name, in the order of the tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__({group: PatchEmbedding(bands, dim) for group, bands in BAND_GROUPS.items()})

    def forward(self, pixels: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """(B, C, 512, 512) pixels in physical units, (C, 1, 1), (C, 1, 1) → (B, G, L, D)."""
        normalised = (pixels - mean) / deviation  # (B, C, 512, 512)
        return torch.stack([embed(normalised) for embed in self.values()], dim=1)


class Attention(nn.Module):
    """Pre-norm multi-head self-attention; the residual is added by the caller."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.heads = dimensions.heads
        self.norm = nn.LayerNorm(dimensions.dim)
        self.to_qkv = nn.Linear(dimensions.dim, 3 * dimensions.attention_dim, bias=False)
        self.to_out = nn.Linear(dimensions.attention_dim, dimensions.dim)
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

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.attention = Attention(dimensions)
        self.mlp = FeedForward(dimensions)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) float32 → (B, N, D) float32."""
        tokens = tokens + self.attention(tokens)
        return tokens + self.mlp(tokens)


class Encoder(nn.Module):
    """Chips to tokens.

    Parameters are float32 as loaded; `to_precision` puts the matrix products (and only those) in bf16.
    Norms, softmax and the stream of tokens between layers stay float32 in either precision.

    Args:
        dimensions: The size of the network.
    """

    mean: Tensor
    deviation: Tensor
    token_encoding: Tensor

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        dim = dimensions.dim
        self.patch_embeddings = PatchEmbeddings(dim)
        self.place_embedding = nn.Linear(2, dim)
        self.date_embedding = nn.Linear(3, dim)
        self.layers = nn.ModuleList(Layer(dimensions) for _ in range(dimensions.depth))
        self.norm = nn.LayerNorm(dim)
        # Not learned and not in the checkpoint, hence not persistent. On the CPU even while the weights are
        # built on the meta device, where computing them would first import PyTorch's compiler, for a second.
        mean, deviation = (
            torch.tensor(values, dtype=torch.float32, device="cpu") for values in (MEAN, DEVIATION)
        )
        self.register_buffer("mean", mean.view(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", deviation.view(-1, 1, 1), persistent=False)
        self.register_buffer("token_encoding", token_encoding(dim), persistent=False)

    def to_precision(self, dtype: torch.dtype) -> "Encoder":
        """Hold the weights of the large matrix products in `dtype`; returns self.

        The maps of place and date stay float32: they cost nothing, and their inputs are exact angles.
        """
        for module in (self.patch_embeddings, self.layers):
            for part in module.modules():
                if isinstance(part, nn.Linear | nn.Conv2d):
                    part.to(dtype)
        return self

    def embed_patches(self, pixels: Tensor) -> Tensor:
        """(B, C, 512, 512) pixels in physical units → (B, G, L, D) encoded patch tokens."""
        patches = self.patch_embeddings(pixels, self.mean, self.deviation)  # (B, G, L, D)
        return patches + self.token_encoding

    def forward(self, pixels: Tensor, places: Tensor, dates: Tensor) -> Tensor:
        """Encode a batch of chips.

        Args:
            pixels: (B, C, 512, 512) float32 in the bands' physical units.
            places: (B, 2) float32 from `encodings.encode_places`.
            dates: (B, 3) float32 from `encodings.encode_dates`.

        Returns:
            (B, N, D) float32: the patch tokens, group by group, then the tokens of place and date.
        """
        patches = self.embed_patches(pixels).flatten(1, 2)  # (B, G*L, D)
        place = self.place_embedding(places).unsqueeze(1)  # (B, 1, D)
        date = self.date_embedding(dates).unsqueeze(1)  # (B, 1, D)
        tokens = torch.cat((patches, place, date), dim=1)  # (B, N, D)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens)
