"""One partition's file: GeoParquet 1.1 with a bbox column by which readers skip row groups.

https://geoparquet.org/releases/v1.1.0/
"""

import json
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from clay_assets.export.quantization import quantize
from clay_assets.publishing.rows import Extent
from clay_assets.publishing.schema import PREFIX, Bounds, footer_metadata
from clay_assets.reading.facts import Quantization
from clay_assets.reading.scan import Block
from clay_assets.stac.parts import CORNERS, covered_geo

BBOX = pa.struct([(corner, pa.float64()) for corner in CORNERS])

OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": ["source_url", "date"],
    "write_statistics": ["source_url", "date", *(f"bbox.{corner}" for corner in CORNERS)],
    "store_schema": False,  # written with the rest of the footer, once the bounds are known
}


def copy_schema(width: int, *, quantized: bool) -> pa.Schema:
    """Return the columns of a published file, and the column of the footprint's bounds."""
    number = pa.uint8() if quantized else pa.float32()
    return pa.schema(
        [
            ("source_url", pa.string()),
            ("date", pa.date32()),
            ("embeddings", pa.fixed_shape_tensor(number, [width])),
            ("geometry", pa.binary()),
            ("bbox", BBOX),
        ]
    )


def write_partition(
    path: Path,
    groups: Iterable[Block],
    width: int,
    provenance: Mapping[str, str],
    quantization: Quantization | None,
) -> tuple[Bounds, date, date]:
    """Write a partition, one row group for each block.

    Args:
        path: A local file.
        groups: Rows with `source_url`, `date`, `geometry`; at least one block.
        width: Numbers of an embedding.
        provenance: Names without their prefix.
        quantization: To store bytes; None to store float32.

    Returns:
        Bounds of the rows, degrees in OGC:CRS84; the earliest and the latest acquisition.
    """
    schema = copy_schema(width, quantized=quantization is not None)
    options = dict(OPTIONS)
    if quantization is None:  # groups the exponents of float32; bytes are one stream already
        options["column_encoding"] = {"embeddings.list.element": "BYTE_STREAM_SPLIT"}
    extent, days, total, rows = Extent(), set[date](), np.zeros(width), 0
    with pq.ParquetWriter(path, schema, **options) as writer:
        for block in groups:
            writer.write_table(_table(block, schema, quantization), row_group_size=len(block.rows))
            for chunk in block.rows["geometry"].chunks:
                extent.add(chunk)
            days.update(pc.unique(block.rows["date"]).to_pylist())
            total += block.vectors.sum(axis=0, dtype=np.float64)
            rows += len(block.rows)
        bounds = extent.bounds or (0, 0, 0, 0)
        geo = covered_geo(bounds, extent.types, counterclockwise=True)
        footer = footer_metadata(schema, geo, provenance, total / rows)
        if quantization is not None:
            footer[f"{PREFIX}quantization"] = json.dumps({"method": "affine", **as_lists(quantization)})
        writer.add_key_value_metadata(footer)
    return bounds, min(days), max(days)


def as_lists(quantization: Quantization) -> dict[str, list[float]]:
    """Return scale and offset as the shortest decimals that restore their float32."""
    pairs = (("scale", quantization.scale), ("offset", quantization.offset))
    return {name: [float(str(value)) for value in values] for name, values in pairs}


def _table(block: Block, schema: pa.Schema, quantization: Quantization | None) -> pa.Table:
    stored = block.vectors if quantization is None else quantize(block.vectors, quantization)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), stored.shape[1])
    footprints = shapely.from_wkb(block.rows["geometry"].to_numpy())
    columns = [
        block.rows["source_url"].cast(pa.string()),
        block.rows["date"].cast(pa.date32()),
        pa.ExtensionArray.from_storage(schema.field("embeddings").type, lists),
        # Exterior rings counterclockwise, as the metadata states.
        pa.array(shapely.to_wkb(shapely.orient_polygons(footprints)), pa.binary()),
        pa.StructArray.from_arrays(
            [pa.array(edge) for edge in shapely.bounds(footprints).T], fields=list(BBOX)
        ),
    ]
    return pa.table(columns, schema=schema)
