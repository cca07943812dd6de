"""Items as one GeoParquet table, `items.parquet`: thousands of tiles in one read.

By hand, after the stac-geoparquet specification: an Item's properties are columns of their own, its assets a
struct, its geometry WKB. https://github.com/stac-utils/stac-geoparquet/blob/main/spec/stac-geoparquet-spec.md
"""

import io
import json
from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely

from clay_assets.publishing.schema import CRS
from clay_assets.stac.item import Json

TIMES = ("datetime", "start_datetime", "end_datetime", "processing:datetime")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def items_table(items: Sequence[Json], collection: Json) -> bytes:
    """Items as a GeoParquet 1.1 file.

    Args:
        items: At least one.
        collection: Theirs; kept in the file's metadata.
    """
    rows = [_row(item) for item in items]
    times = pa.timestamp("us", tz="UTC")
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        columns[name] = pa.array(values, times) if name in TIMES else pa.array(values)
    outlines = [shapely.geometry.shape(item["geometry"]) for item in items]
    columns["geometry"] = pa.array(shapely.to_wkb(outlines), pa.binary())
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": sorted({outline.geom_type for outline in outlines}),
                "crs": pyproj.CRS.from_user_input(CRS).to_json_dict(),
                "bbox": list(shapely.total_bounds(outlines)),
                "covering": {"bbox": {corner: ["bbox", corner] for corner in CORNERS}},
            }
        },
    }
    said = {"version": "1.0.0", "collections": {collection["id"]: collection}}
    table = pa.table(columns).replace_schema_metadata(
        {"geo": json.dumps(geo), "stac-geoparquet": json.dumps(said)}
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _row(item: Json) -> Json:
    properties = {
        name: datetime.fromisoformat(value) if name in TIMES and value else value
        for name, value in item["properties"].items()
    }
    return {
        "stac_version": item["stac_version"],
        "stac_extensions": item["stac_extensions"],
        "id": item["id"],
        "collection": item["collection"],
        "bbox": dict(zip(CORNERS, item["bbox"], strict=True)),
        "links": item["links"],
        "assets": item["assets"],
        **properties,
    }
