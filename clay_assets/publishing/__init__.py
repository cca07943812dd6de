"""The published file: one GeoParquet 1.0.0 file of embeddings per tile.

names.py       file names
schema.py      columns and metadata
rows.py        requirements on a row
writer.py      writing a file
footer.py      reading a footer: provenance and faults
validation.py  everything that is wrong with a file
versions.py    the files of a version, and their inputs
publish.py     publishes a tile's results
"""

from clay_assets.publishing.footer import read_provenance
from clay_assets.publishing.names import PublishedName, parse_published_name, published_name
from clay_assets.publishing.rows import RowsRefusedError
from clay_assets.publishing.schema import published_schema
from clay_assets.publishing.validation import validate
from clay_assets.publishing.writer import write_geoparquet

__all__ = [
    "PublishedName",
    "RowsRefusedError",
    "parse_published_name",
    "published_name",
    "published_schema",
    "read_provenance",
    "validate",
    "write_geoparquet",
]
