"""Outcomes of a tile's chips, kept between runs, by fingerprint and tile, in the work store.

A chip's result is found by its key below the tile's folder and its ETag, and is not embedded again: a tile
that was interrupted, or got new chips, continues from there. Vectors of a tile can be larger than memory (2.3
GB at level `group`), so they go through files in small pieces.

    outcomes.py     embedded or skipped: what a chip becomes
    fingerprint.py  what vectors depend on besides their chips
    schema.py       the columns
    header.py       what a file says of itself: how its vectors were made, and the tile in numbers
    reader.py       reading a file: its footer alone, some columns, some rows
    writer.py       writing one
    pieces.py       the chips finished so far, stored before the tile's end against a kill
    counts.py       outcomes counted, and gathered for the picture
    picture.py      true colour beside the embeddings

Not here: what to embed of a tile (`state.comparison`), or what people read (`publishing`).
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
