"""What people see in the Dagster UI: table schemas, tables of skips, previews, links. Presentation only."""

from collections.abc import Mapping, Sequence

import dagster as dg
import pyarrow as pa

MAX_ROWS = 200
"""Rows of a table in the event log; a tile whose chips are all broken has about 480."""


def column_schema(schema: pa.Schema, **descriptions: str) -> dg.TableSchema:
    """An Arrow schema as Dagster's, with a description for each column named."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name,
                type=str(field.type),
                description=descriptions.get(field.name),
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in schema
        ]
    )


def table(rows: Sequence[Mapping[str, str | int | float]]) -> dg.MetadataValue:
    """Rows as a table, at most `MAX_ROWS`; null where there are none, because Dagster's tables need a row."""
    if not rows:
        return dg.MetadataValue.null()
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows[:MAX_ROWS]])


def map_link(west: float, south: float, east: float, north: float) -> dg.MetadataValue:
    """A link that opens a map with a box in degrees of WGS 84 drawn on it."""
    edges = f"minlon={west:.5f}&minlat={south:.5f}&maxlon={east:.5f}&maxlat={north:.5f}"
    return dg.MetadataValue.url(f"https://www.openstreetmap.org/?{edges}&box=yes")
