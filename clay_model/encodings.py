"""Clay v0's places and dates, by the names that the pipeline uses; `Embedder.context` serves both models."""

from clay_model.v0.encodings import encode_dates, encode_places

__all__ = ["encode_dates", "encode_places"]
