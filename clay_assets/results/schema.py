"""Columns of a results file: a row for each window of an embedded chip, and for each skipped chip."""

import pyarrow as pa

THUMBNAIL_SIZE = 16
"""Pixels along the side of a chip's true-colour thumbnail: 22 x 22 chips, a tile, are 352 pixels wide."""


def results_schema(width: int) -> pa.Schema:
    """Return the schema for embeddings of `width` numbers."""
    return pa.schema(
        [
            pa.field("source_url", pa.string(), nullable=False),
            pa.field("etag", pa.string(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("window", pa.int16(), nullable=False),  # of the chip, row by row from 0
            # Of embedded chips:
            pa.field("date", pa.date32()),
            pa.field("embeddings", pa.list_(pa.float32(), width)),
            pa.field("geometry", pa.binary()),  # WKB polygon in OGC:CRS84
            pa.field("nodata", pa.float32()),  # share of its pixels without data, 0 to 1
            pa.field("thumbnail", pa.binary(3 * THUMBNAIL_SIZE**2)),  # RGB bytes, row by row
            # Of skipped chips:
            pa.field("reason", pa.string()),
            pa.field("detail", pa.string()),
            pa.field("reader", pa.int16(), nullable=False),  # READER_VERSION that the chip was read with
        ]
    )
