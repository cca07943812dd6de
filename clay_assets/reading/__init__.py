"""Reads published embeddings: a folder, a file or a list of them, on this machine or in a bucket.

Imports neither PyTorch nor Dagster.

    files.py       an address → the files under it, and what their footers declare; refusing to mix them
    selection.py   tiles, bounding box, dates: which files, row groups and rows can match
    scan.py        opening files, and reading their rows in bounded memory
    embeddings.py  read_embeddings, read_vectors
"""

from clay_assets.reading.embeddings import read_embeddings, read_vectors
from clay_assets.reading.files import MixedEmbeddings, NothingToRead

__all__ = ["MixedEmbeddings", "NothingToRead", "read_embeddings", "read_vectors"]
