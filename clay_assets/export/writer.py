"""One partition's file: GeoParquet 1.1 with a bbox column that lets readers skip row groups.

https://geoparquet.org/releases/v1.1.0/
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj
import shapely
from numpy.typing import NDArray

from clay_assets.export.quantization import quantize
from clay_assets.publishing.rows import Outline
from clay_assets.publishing.schema import CRS, PREFIX, Bounds, arrow_schema_metadata, mean_metadata
from clay_assets.reading.facts import Quantization
from clay_assets.reading.scan import Block

CORNERS = ("xmin", "ymin", "xmax", "ymax")
BBOX = pa.struct([(corner, pa.float64()) for corner in CORNERS])

OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": ["source_url", "date"],
    "write_statistics": ["source_url", "date", *(f"bbox.{corner}" for corner in CORNERS)],
    "store_schema": False,  # it is put into the footer with the rest, once the bounds are known
}


@dataclass(frozen=True)
class Partition:
    """What a file holds.

    Attributes:
        bounds: Of its rows, degrees in OGC:CRS84.
        first: Earliest acquisition.
        last: Latest acquisition.
    """

    bounds: Bounds
    first: date
    last: date


def copy_schema(width: int, *, quantized: bool) -> pa.Schema:
    """Columns of a copy: those of a published file, and the outline's bounds."""
    number = pa.uint8() if quantized else pa.float32()
    tensor = pa.fixed_shape_tensor(number, [width])
    return pa.schema(
        [
            ("source_url", pa.string()),
            ("date", pa.date32()),
            ("embeddings", tensor),
            ("geometry", pa.binary()),
            ("bbox", BBOX),
        ]
    )


def write_partition(
    path: Path, groups: Iterable[Block], width: int, said: Mapping[str, str], how: Quantization | None
) -> Partition:
    """Write a partition, a row group for each block.

    Args:
        path: A local file.
        groups: Rows with `source_url`, `date`, `geometry`; at least one block.
        width: Numbers of an embedding.
        said: Provenance, by bare names.
        how: To store bytes; float32 where None.

    Returns:
        Bounds and dates of what was written.
    """
    schema = copy_schema(width, quantized=how is not None)
    # Splitting floats into streams of bytes gathers their exponents; bytes are one stream already.
    encoding = {"column_encoding": {"embeddings.list.element": "BYTE_STREAM_SPLIT"}} if how is None else {}
    outline, days, total, rows = Outline(), set[date](), np.zeros(width), 0
    with pq.ParquetWriter(path, schema, **OPTIONS, **encoding) as writer:
        for block in groups:
            writer.write_table(_table(block, schema, how), row_group_size=len(block.rows))
            for chunk in block.rows["geometry"].chunks:
                outline.add(chunk)
            days.update(pc.unique(block.rows["date"]).to_pylist())
            total += block.vectors.sum(axis=0, dtype=np.float64)
            rows += len(block.rows)
        clay = {PREFIX + name: value for name, value in said.items()}
        stated = {"geo": _geo(outline), **clay}
        more = mean_metadata(total / rows)
        if how is not None:
            more[f"{PREFIX}quantization"] = json.dumps(
                {"method": "affine", "scale": numbers(how.scale), "offset": numbers(how.offset)}
            )
        writer.add_key_value_metadata(stated | arrow_schema_metadata(schema, stated) | more)
    return Partition(outline.bounds or (0, 0, 0, 0), min(days), max(days))


def numbers(values: NDArray[np.float32]) -> list[float]:
    """Float32 as the shortest decimals that give it back."""
    return [float(str(value)) for value in values]


def _table(block: Block, schema: pa.Schema, how: Quantization | None) -> pa.Table:
    stored = block.vectors if how is None else quantize(block.vectors, how)
    tensor = schema.field("embeddings").type
    lists = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), stored.shape[1])
    outlines = shapely.from_wkb(block.rows["geometry"].to_numpy())
    bounds = shapely.bounds(outlines)
    boxes = pa.StructArray.from_arrays([pa.array(edge) for edge in bounds.T], fields=list(BBOX))
    # Outer rings counterclockwise, which GeoParquet lets a file claim, and readers check.
    wkb = pa.array(shapely.to_wkb(shapely.orient_polygons(outlines)), pa.binary())
    columns = {
        "source_url": block.rows["source_url"].cast(pa.string()),
        "date": block.rows["date"].cast(pa.date32()),
        "embeddings": pa.ExtensionArray.from_storage(tensor, lists),
        "geometry": wkb,
        "bbox": boxes,
    }
    return pa.table(list(columns.values()), schema=schema)


def _geo(outline: Outline) -> str:
    geometry = {
        "encoding": "WKB",
        "geometry_types": sorted(outline.types),
        "crs": pyproj.CRS.from_user_input(CRS).to_json_dict(),
        "edges": "planar",
        "orientation": "counterclockwise",
        "bbox": list(outline.bounds or ()),
        "covering": {"bbox": {corner: ["bbox", corner] for corner in CORNERS}},
    }
    return json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}})
