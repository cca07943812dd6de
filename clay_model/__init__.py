"""The Clay v0 encoder in PyTorch: chips of satellite imagery in, embeddings out.

    from clay_model import load_encoder
    encoder = load_encoder("checkpoint.ckpt", device="auto", precision="fp32")
    vectors = encoder.embed(pixels, lonlat=lonlat, dates=dates, level="mean")

This package knows nothing of files of imagery, of storage or of Dagster.
"""

from clay_model.checkpoint import CheckpointError, read_checkpoint
from clay_model.embed import Embedder, load_encoder
from clay_model.encoder import Encoder
from clay_model.spec import BANDS, SIZES, Dimensions, Level, ModelSize, Precision, embedding_shape

__all__ = [
    "BANDS",
    "SIZES",
    "CheckpointError",
    "Dimensions",
    "Embedder",
    "Encoder",
    "Level",
    "ModelSize",
    "Precision",
    "embedding_shape",
    "load_encoder",
    "read_checkpoint",
]
