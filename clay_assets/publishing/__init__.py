"""The published file: one GeoParquet 1.0.0 file of embeddings per tile.

names.py       file names
schema.py      columns and metadata
rows.py        what a row must be
writer.py      writing a file
footer.py      reading a footer: provenance, and what is wrong with what it declares
validation.py  everything that is wrong with a file
versions.py    the files of a version, and what they were made from
publish.py     a tile's results become its published file
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
