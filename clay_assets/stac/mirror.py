"""Items as one GeoParquet table, `items.parquet`: thousands of tiles in one read.

Written after the stac-geoparquet specification: an Item's properties are columns of their own, its assets a
struct, its geometry WKB. https://github.com/stac-utils/stac-geoparquet/blob/main/spec/stac-geoparquet-spec.md
"""

import io
import json
from collections.abc import Collection, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from clay_assets.publishing.schema import Bounds, geo_metadata
from clay_assets.stac.parts import Json

TIMES = ("datetime", "start_datetime", "end_datetime", "processing:datetime")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def items_table(items: Sequence[Json], collection: Json) -> bytes:
    """Return Items as a GeoParquet 1.1 file.

    Args:
        items: At least one.
        collection: Their Collection, kept in the file's metadata.
    """
    rows = [_row(item) for item in items]
    times = pa.timestamp("us", tz="UTC")
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        columns[name] = pa.array(values, times) if name in TIMES else pa.array(values)
    footprints = [shapely.geometry.shape(item["geometry"]) for item in items]
    columns["geometry"] = pa.array(shapely.to_wkb(footprints), pa.binary())
    bounds = tuple(shapely.total_bounds(footprints).tolist())
    description = {"version": "1.0.0", "collections": {collection["id"]: collection}}
    table = pa.table(columns).replace_schema_metadata(
        {
            "geo": covered_geo(bounds, {footprint.geom_type for footprint in footprints}, False),
            "stac-geoparquet": json.dumps(description),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def covered_geo(bounds: Bounds, types: Collection[str], counterclockwise: bool) -> str:
    """Return `geo` of GeoParquet 1.1 for a table with a column `bbox`, by which readers skip row groups."""
    geo = json.loads(geo_metadata(bounds, types, counterclockwise)) | {"version": "1.1.0"}
    geo["columns"]["geometry"]["covering"] = {"bbox": {corner: ["bbox", corner] for corner in CORNERS}}
    return json.dumps(geo)


def _row(item: Json) -> Json:
    plain = ("stac_version", "stac_extensions", "id", "collection", "links", "assets")
    properties = {
        name: datetime.fromisoformat(value) if name in TIMES and value else value
        for name, value in item["properties"].items()
    }
    return (
        {name: item[name] for name in plain}
        | {"bbox": dict(zip(CORNERS, item["bbox"], strict=True))}
        | properties
    )
