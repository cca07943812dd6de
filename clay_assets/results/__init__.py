"""Outcomes of a tile's chips, kept in the work store between runs, by fingerprint and tile.

A chip's result is found by its key below the tile's folder and its ETag, and is not embedded again: a tile
that was interrupted, or got new chips, continues from there. A tile's vectors can be larger than memory (2.3
GB at level `group`), so they are read and written in small pieces.

    outcomes.py     the outcome of a chip, embedded or skipped, and the columns of its rows
    header.py       key-value metadata: fingerprint, provenance and summary
    reader.py       which results count as current; reading a footer alone, some columns, some rows
    writer.py       writing a file
    pieces.py       finished chips stored before the tile's end, in case the run is killed
    counts.py       outcomes counted, and gathered for the picture
    picture.py      true colour next to the embeddings
"""

from clay_assets.results.header import (
    Fingerprint,
    Provenance,
    ResultsHeader,
    TileSummary,
    chip_key,
    chips_digest,
)
from clay_assets.results.reader import KnownChip, Target, TileResults, results_key
from clay_assets.results.writer import ResultsWriter

__all__ = [
    "Fingerprint",
    "KnownChip",
    "Provenance",
    "ResultsHeader",
    "ResultsWriter",
    "Target",
    "TileResults",
    "TileSummary",
    "chip_key",
    "chips_digest",
    "results_key",
]
