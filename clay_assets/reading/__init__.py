"""Read published embeddings back: from a folder, a file or a list of them, of this machine or of a bucket.

Here belongs finding the files and row groups that can match a question, and turning them into frames and
arrays. What a published file looks like is in `publishing`, what is done with the vectors in `search` and
`export`. Imports neither PyTorch nor Dagster.

    files.py       an address → the files under it
    facts.py       a file's footer → model, level, shape, rows, mean; refusing to mix them
    selection.py   tiles, bounding box, dates: which files, row groups and rows can match
    scan.py        opening files, and walking through their rows in bounded memory
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
