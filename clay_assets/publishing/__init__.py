"""The published file: one GeoParquet 1.0.0 file of embeddings per tile, its name, its footer, its rules.

Here belongs whatever decides what a reader finds in a `.gpq` file: columns and types (`schema.py`), what a
row must be (`rows.py`), the file's name (`names.py`), writing it (`writer.py`), reading its footer
(`footer.py`) and finding its faults (`validation.py`). Where the file goes and when it is replaced does not
belong here (`publishing`, `storage`), nor how a chip becomes a vector (`clay_model`), nor Dagster.
"""

from clay_assets.publishing.footer import read_provenance
from clay_assets.publishing.names import PUBLISHED_NAME, PublishedName, parse_published_name, published_name
from clay_assets.publishing.rows import RowsRefusedError
from clay_assets.publishing.schema import COLUMNS, PROVENANCE, published_schema
from clay_assets.publishing.validation import validate
from clay_assets.publishing.writer import PublishedSummary, write_geoparquet

__all__ = [
    "COLUMNS",
    "PROVENANCE",
    "PUBLISHED_NAME",
    "PublishedName",
    "PublishedSummary",
    "RowsRefusedError",
    "parse_published_name",
    "published_name",
    "published_schema",
    "read_provenance",
    "validate",
    "write_geoparquet",
]
