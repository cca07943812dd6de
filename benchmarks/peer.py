"""The networks as the original built them, for comparison only.

They run under bf16 autocast with float32 weights and leave everything else to PyTorch, as the original does:
Clay v0 with the Transformer of `vit-pytorch` 1.6.4, Clay v1.5 with fused attention (the operations of our
plain path) and with kernels generated at every call. Their weights are those of one of our encoders.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor, nn

from clay_model.layers import Transformer
from clay_model.model_spec import HEAD_DIM, ModelSpec
from clay_model.v0.checkpoint import FORMAT
from clay_model.v0.encoder import Encoder as EncoderV0
from clay_model.v0.spec import BAND_GROUPS, EXTRA_TOKENS, PATCH_SIZE
from clay_model.v15.encoder import Encoder as EncoderV15
from clay_model.v15.generator import KernelGenerator
from clay_model.v15.spec import PATCH_SIZE as PATCH_SIZE_V15
from clay_model.v15.spec import WAVELENGTHS


class Peer(nn.Module):
    """Base of both: normalises pixels in physical units."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        for name, values in (("mean", spec.mean), ("deviation", spec.deviation)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, C, S, S) → the same."""
        return (pixels - self.mean) / self.deviation


class PeerPatches(nn.Module):
    """Patch embedding of one band group."""

    def __init__(self, bands: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(bands, dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)
        self.norm = nn.LayerNorm(dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, bands, 512, 512) → (B, L, D)."""
        return self.norm(self.proj(pixels).flatten(2).transpose(1, 2))


class PeerV0(Peer):
    """Clay v0.

    Args:
        encoder: A plain float32 encoder; its weights are copied.
    """

    encoding: Tensor

    def __init__(self, encoder: EncoderV0) -> None:
        super().__init__(encoder.spec)
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
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor, places: Tensor, dates: Tensor) -> Tensor:
        """(B, C, 512, 512), (B, 2), (B, 3) → (B, D) mean embeddings."""
        pixels = self.normalise(pixels)
        patches = torch.cat(
            [embed(pixels[:, BAND_GROUPS[group], :, :]) for group, embed in self.patch_embedding.items()],
            dim=1,
        )  # (B, G*L, D)
        extra = (self.latlon_embedding(places).unsqueeze(1), self.time_embedding(dates).unsqueeze(1))
        tokens = self.transformer(torch.cat((patches + self.encoding, *extra), dim=1))
        return tokens[:, :-EXTRA_TOKENS].mean(dim=1)


class PeerV15(Peer):
    """Clay v1.5.

    Args:
        encoder: A plain float32 encoder; its weights are copied.
        generator: The generator of its kernels.
    """

    position: Tensor

    def __init__(self, encoder: EncoderV15, generator: KernelGenerator) -> None:
        super().__init__(encoder.spec)
        self.generator = generator
        self.class_token = encoder.class_token
        self.transformer = Transformer(encoder.dimensions, output_bias=False)
        self.transformer.load_state_dict(encoder.transformer.state_dict())
        self.register_buffer("position", encoder.position.clone(), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor, places: Tensor, times: Tensor) -> Tensor:
        """(B, C, 256, 256), (B, 4), (B, 4) → (B, D) class tokens."""
        kernels, bias = self.generator(WAVELENGTHS)
        patches = F.conv2d(self.normalise(pixels), kernels, bias, stride=PATCH_SIZE_V15)
        patches = patches.flatten(2).transpose(1, 2)  # (B, L, D)
        batch, count, _ = patches.shape
        context = torch.cat((times, places), dim=1).unsqueeze(1).expand(-1, count, -1)
        encoding = torch.cat((self.position.expand(batch, -1, -1), context), dim=2)
        first = self.class_token.expand(batch, -1, -1)
        return self.transformer(torch.cat((first, patches + encoding), dim=1))[:, 0]


@torch.inference_mode()
def embed_with_peer(peer: nn.Module, pixels: Tensor, places: Tensor, dates: Tensor, bf16: bool) -> Tensor:
    """Embed a batch as the original's `predict` does: under autocast, with float32 weights.

    Args:
        peer: The network.
        pixels: (B, C, S, S) float32 in physical units, on the peer's device.
        places: As our network takes them, float32.
        dates: As our network takes them, float32.
        bf16: Whether matrix products are cast to bf16 (Lightning's `bf16-mixed`).

    Returns:
        (B, D).
    """
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
        return peer(pixels, places, dates)


def _vit_module() -> ModuleType:
    """Import `vit_pytorch.vit` alone: the package's `__init__` imports all its networks and torchvision."""
    package = importlib.util.find_spec("vit_pytorch")
    if package is None or package.origin is None:
        raise SystemExit("the peer needs vit-pytorch: pip install -e '.[bench]'")
    name = "vit_pytorch_vit"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(package.origin).with_name("vit.py"))
        if spec is None or spec.loader is None:
            raise SystemExit(f"no vit.py next to {package.origin}: expected vit-pytorch 1.6.4")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
