"""Clay v1.5's network as the original built it, to be compared with: never used by the packages.

It generates its kernels at every call, asks PyTorch for fused attention on queries, keys and values split
from one product, and runs under bf16 autocast with float32 weights. This module wires the same parts in the
same order, takes its weights from one of our encoders, and leaves everything else to PyTorch.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor, nn

from clay_model.model_spec import HEAD_DIM, Dimensions
from clay_model.v15.checkpoint import FORMAT
from clay_model.v15.encoder import Encoder
from clay_model.v15.generator import KernelGenerator
from clay_model.v15.spec import PATCH_SIZE, SPEC, WAVELENGTHS


class PeerAttention(nn.Module):
    """Pre-norm attention by PyTorch's fused kernel."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimensions.dim)
        self.to_qkv = nn.Linear(dimensions.dim, 3 * dimensions.attention_dim, bias=False)
        self.to_out = nn.Linear(dimensions.attention_dim, dimensions.dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) → (B, N, D)."""
        parts = self.to_qkv(self.norm(tokens)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, H, N, E)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class PeerMlp(nn.Module):
    """Pre-norm perceptron."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        dim, hidden = dimensions.dim, dimensions.mlp_dim
        self.net = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) → (B, N, D)."""
        return self.net(tokens)


class PeerTransformer(nn.Module):
    """Layers and the final norm, under the names that they have in a checkpoint."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimensions.dim)
        self.layers = nn.ModuleList(
            nn.ModuleList((PeerAttention(dimensions), PeerMlp(dimensions))) for _ in range(dimensions.depth)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) → (B, N, D)."""
        for layer in self.layers:
            for part in layer.children():
                tokens = part(tokens) + tokens
        return self.norm(tokens)


class PeerV15(nn.Module):
    """The original's network with the weights of `encoder`.

    Args:
        encoder: A plain float32 encoder; its weights are copied.
        generator: What generated its kernels.
    """

    mean: Tensor
    deviation: Tensor
    position: Tensor

    def __init__(self, encoder: Encoder, generator: KernelGenerator) -> None:
        super().__init__()
        self.generator = generator
        self.class_token = encoder.class_token
        self.transformer = PeerTransformer(encoder.dimensions)
        ours, start = encoder.state_dict(), "transformer."
        names = FORMAT.names(encoder.dimensions).items()
        self.transformer.load_state_dict(
            {theirs.removeprefix(start): ours[name] for theirs, name in names if theirs.startswith(start)}
        )
        self.register_buffer("position", encoder.position.clone(), persistent=False)
        for name, values in (("mean", SPEC.mean), ("deviation", SPEC.deviation)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor, places: Tensor, times: Tensor) -> Tensor:
        """(B, C, 256, 256) pixels in physical units, (B, 4), (B, 4) → (B, D) class tokens."""
        kernels, bias = self.generator(WAVELENGTHS)
        patches = F.conv2d((pixels - self.mean) / self.deviation, kernels, bias, stride=PATCH_SIZE)
        patches = patches.flatten(2).transpose(1, 2)  # (B, L, D)
        batch, count, _ = patches.shape
        context = torch.cat((times, places), dim=1).unsqueeze(1).expand(-1, count, -1)
        encoding = torch.cat((self.position.expand(batch, -1, -1), context), dim=2)
        first = self.class_token.expand(batch, -1, -1)
        return self.transformer(torch.cat((first, patches + encoding), dim=1))[:, 0]
