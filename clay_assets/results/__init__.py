"""What became of a tile's chips, kept between runs: `chip_embeddings/{MGRS}.parquet` in the work store.

A chip's result is found by its URL and ETag, so whatever such a file holds under the present fingerprint
need not be embedded again: a tile that was interrupted, or got new chips, goes on where it stood. Vectors
of a tile can be larger than memory (2.3 GB at level `group`), so they go through files in small pieces.

    header.py  what a file says of itself: how its vectors were made, and the tile in numbers
    reader.py  reading one: its footer alone, some columns, some rows
    writer.py  writing one

The columns are in `tables`. Not here: what is left to do of a tile (`planning`), or what people read
(`geoparquet`).
"""

from clay_assets.results.header import Making, ResultsHeader, TileSummary
from clay_assets.results.reader import TileResults, results_key
from clay_assets.results.writer import ResultsWriter

__all__ = ["Making", "ResultsHeader", "ResultsWriter", "TileResults", "TileSummary", "results_key"]
