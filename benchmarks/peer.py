"""Clay v0's network as the original built it, to be compared with: never used by the packages.

It puts its own patch embeddings and encodings around the Transformer of `vit-pytorch` 1.6.4 and runs it
under bf16 autocast with float32 weights. This module wires the same parts in the same order, takes its
weights from one of our encoders, and leaves everything else to PyTorch, as the original does.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from clay_model.model_spec import HEAD_DIM
from clay_model.v0.checkpoint import FORMAT
from clay_model.v0.encoder import Encoder
from clay_model.v0.spec import BAND_GROUPS, DEVIATION, EXTRA_TOKENS, MEAN, PATCH_SIZE


def _vit_module() -> ModuleType:
    """`vit_pytorch.vit` alone: the package's `__init__` imports every network there is, and torchvision."""
    package = importlib.util.find_spec("vit_pytorch")
    if package is None or package.origin is None:
        raise SystemExit("the peer needs vit-pytorch: pip install -e '.[bench]'")
    name = "vit_pytorch_vit"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(package.origin).with_name("vit.py"))
        if spec is None or spec.loader is None:
            raise SystemExit(f"no vit.py beside {package.origin}: expected vit-pytorch 1.6.4")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


class PeerPatches(nn.Module):
    """Patch embedding of one band group."""

    def __init__(self, bands: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(bands, dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)
        self.norm = nn.LayerNorm(dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, bands, 512, 512) → (B, L, D)."""
        return self.norm(self.proj(pixels).flatten(2).transpose(1, 2))


class Peer(nn.Module):
    """The original's network with the weights of `encoder`.

    Args:
        encoder: A plain float32 encoder; its weights are copied.
    """

    encoding: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        dimensions = encoder.dimensions
        dim = dimensions.dim
        self.patch_embedding = nn.ModuleDict(
            {group: PeerPatches(len(bands), dim) for group, bands in BAND_GROUPS.items()}
        )
        self.latlon_embedding = nn.Linear(2, dim)
        self.time_embedding = nn.Linear(3, dim)
        self.transformer = _vit_module().Transformer(
            dim, dimensions.depth, dimensions.heads, HEAD_DIM, dimensions.mlp_dim
        )
        ours = encoder.state_dict()
        self.load_state_dict({theirs: ours[name] for theirs, name in FORMAT.names(dimensions).items()})
        self.register_buffer("encoding", encoder.token_encoding.flatten(0, 1).clone(), persistent=False)
        for name, values in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor, places: Tensor, dates: Tensor) -> Tensor:
        """(B, C, 512, 512) pixels in physical units, (B, 2), (B, 3) → (B, D) mean embeddings."""
        pixels = (pixels - self.mean) / self.deviation
        patches = torch.cat(
            [embed(pixels[:, BAND_GROUPS[group], :, :]) for group, embed in self.patch_embedding.items()],
            dim=1,
        )  # (B, G*L, D)
        extra = (self.latlon_embedding(places).unsqueeze(1), self.time_embedding(dates).unsqueeze(1))
        tokens = self.transformer(torch.cat((patches + self.encoding, *extra), dim=1))
        return tokens[:, :-EXTRA_TOKENS].mean(dim=1)


@torch.inference_mode()
def embed_with_peer(peer: nn.Module, pixels: Tensor, places: Tensor, dates: Tensor, bf16: bool) -> Tensor:
    """Embed a batch as the original's `predict` does: under autocast, with float32 weights.

    Args:
        peer: The network.
        pixels: (B, C, S, S) float32 in physical units, on the peer's device.
        places: As the network takes them, float32.
        dates: Likewise.
        bf16: Whether matrix products are cast to bf16 (Lightning's `bf16-mixed`).

    Returns:
        (B, D).
    """
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
        return peer(pixels, places, dates)
