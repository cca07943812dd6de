"""Turns chips into vectors: plans a tile, loads the encoder, streams the chips, stores the results."""
