"""What people see in the Dagster UI: table schemas, tables of skips, previews, links. Presentation only."""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

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
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    return dg.MetadataValue.url(
        f"https://geojson.io/#data=data:application/json,{quote(json.dumps(feature))}"
    )
