"""Embeddings of satellite imagery as Dagster assets, one partition per MGRS tile.

Reading chips, streaming them through the encoder, accounting for each, writing GeoParquet. How the network
works is `clay_model`'s business.
"""

__version__ = "0.1.0"
