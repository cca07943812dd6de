"""Reads published embeddings: a folder, a file or a list of them, on this machine or in a bucket.

Imports neither PyTorch nor Dagster.

    files.py       an address → the files under it
    facts.py       a file's footer → model, level, shape, rows, mean; refusing to mix them
    selection.py   tiles, bounding box, dates: which files, row groups and rows can match
    scan.py        opening files, and reading their rows in bounded memory
    columns.py     a column of embeddings of any Arrow type → (N, D) float32
    embeddings.py  read_embeddings, read_vectors
"""

from clay_assets.reading.embeddings import read_embeddings, read_vectors
from clay_assets.reading.facts import Facts, MixedEmbeddings
from clay_assets.reading.files import NothingToRead, SourceFile, find_files

__all__ = [
    "Facts",
    "MixedEmbeddings",
    "NothingToRead",
    "SourceFile",
    "find_files",
    "read_embeddings",
    "read_vectors",
]
