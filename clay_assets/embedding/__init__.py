"""Chips become vectors: what is to do of a tile, the encoder, the stream, one tile through it."""
