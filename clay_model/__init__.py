"""The encoders of Clay v0 and Clay v1.5 in PyTorch: chips of satellite imagery in, embeddings out.

    from clay_model import load_encoder
    encoder = load_encoder("checkpoint.ckpt", device="auto", precision="fp32")
    vectors = encoder.embed(pixels, lonlat=lonlat, dates=dates)

    spec.py               the two models as data; model_spec.py defines the type
    v0/, v15/             each model: encodings, encoder, names in a checkpoint
    encoder.py, layers.py, sincos.py, inputs.py       what both networks share
    accelerate.py, kernels/, device.py                fast parts, devices and precisions
    archive.py, pickled.py                            reads a checkpoint without executing pickled code
    checkpoint.py, checkpoint_format.py               checks it and builds the encoder
    embed.py              load_encoder, Embedder

The package depends on neither image files, storage nor Dagster. Names that need PyTorch are loaded on first
use, so that importing `clay_model.spec` does not take the seconds that importing torch does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clay_model.spec import (
    BANDS,
    SIZES,
    V0,
    V15,
    Dimensions,
    Level,
    ModelSpec,
    Precision,
    model_of,
)

if TYPE_CHECKING:
    from clay_model.archive import CheckpointError
    from clay_model.checkpoint import read_checkpoint
    from clay_model.embed import Embedder, load_encoder

__all__ = [
    "BANDS",
    "SIZES",
    "V0",
    "V15",
    "CheckpointError",
    "Dimensions",
    "Embedder",
    "Level",
    "ModelSpec",
    "Precision",
    "load_encoder",
    "model_of",
    "read_checkpoint",
]

_NEED_TORCH = {
    "CheckpointError": "archive",
    "read_checkpoint": "checkpoint",
    "Embedder": "embed",
    "load_encoder": "embed",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name in _NEED_TORCH:
        return getattr(import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
