"""Outcomes of a tile's chips, kept in the work store between runs, by fingerprint and tile.

A chip's result is found by its key below the tile's folder and its ETag, and is not embedded again: a tile
that was interrupted, or got new chips, continues from there. A tile's vectors can be larger than memory (2.3
GB at level `group`), so they are read and written in small pieces.

    outcomes.py     the outcome of a chip: embedded or skipped
    fingerprint.py  what vectors depend on besides their chips
    schema.py       the columns
    header.py       key-value metadata: provenance and summary
    reader.py       reading a file: its footer alone, some columns, some rows
    writer.py       writing one
    pieces.py       finished chips stored before the tile's end, in case the run is killed
    counts.py       outcomes counted, and gathered for the picture
    picture.py      true colour next to the embeddings
    target.py       which results count as current
"""

from clay_assets.results.header import Provenance, ResultsHeader, TileSummary
from clay_assets.results.reader import RESULTS_PREFIX, KnownChip, TileResults, results_key
from clay_assets.results.writer import ResultsWriter

__all__ = [
    "RESULTS_PREFIX",
    "KnownChip",
    "Provenance",
    "ResultsHeader",
    "ResultsWriter",
    "TileResults",
    "TileSummary",
    "results_key",
]
