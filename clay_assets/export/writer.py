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
from numpy.typing import NDArray

from clay_assets.export.quantization import quantize
from clay_assets.publishing.rows import Extent
from clay_assets.publishing.schema import PREFIX, Bounds, footer_metadata, published_schema
from clay_assets.reading.files import Quantization
from clay_assets.reading.scan import Block
from clay_assets.stac.parts import CORNERS, covered_geo

BBOX = pa.struct([(corner, pa.float64()) for corner in CORNERS])


def copy_schema(width: int, *, quantized: bool) -> pa.Schema:
    """Return the columns of a published file, and the column of the footprint's bounds."""
    schema = published_schema((width,)).append(pa.field("bbox", BBOX))
    vectors = pa.fixed_shape_tensor(pa.uint8() if quantized else pa.float32(), [width])
    return schema.set(schema.get_field_index("embeddings"), pa.field("embeddings", vectors))


def write_partition(
    path: Path,
    groups: Iterable[Block],
    schema: pa.Schema,
    provenance: Mapping[str, str],
    quantization: Quantization | None,
) -> tuple[Bounds, date, date]:
    """Write a partition, one row group for each block of `OTHERS`; `provenance` without its prefix.

    Returns:
        Bounds of the rows; the earliest and the latest acquisition.
    """
    extent, days, total, count = Extent(), set[date](), np.zeros(1), 0
    # This encoding groups the exponents of float32; bytes are one stream already.
    encoding = {"embeddings.list.element": "BYTE_STREAM_SPLIT"} if quantization is None else None
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=["source_url", "date"],
        column_encoding=encoding,
        write_statistics=["source_url", "date", *(f"bbox.{corner}" for corner in CORNERS)],
        store_schema=False,  # written with the rest of the footer, once the bounds are known
    ) as writer:
        for rows, vectors in groups:
            stored = vectors if quantization is None else quantize(vectors, quantization)
            writer.write_table(_table(rows, stored, schema), row_group_size=len(rows))
            for chunk in rows["geometry"].chunks:
                extent.add(chunk)
            days.update(pc.unique(rows["date"]).to_pylist())
            total = total + vectors.sum(axis=0, dtype=np.float64)
            count += len(rows)
        bounds = extent.bounds or (0, 0, 0, 0)
        geo = covered_geo(bounds, extent.types, counterclockwise=True)
        footer = footer_metadata(schema, geo, provenance, total / count)
        if quantization is not None:
            footer[PREFIX + "quantization"] = json.dumps({"method": "affine", **quantization.as_lists()})
        writer.add_key_value_metadata(footer)
    return bounds, min(days), max(days)


def _table(rows: pa.Table, stored: NDArray[Any], schema: pa.Schema) -> pa.Table:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), stored.shape[1])
    footprints = shapely.from_wkb(rows["geometry"].to_numpy())
    columns = [
        rows["source_url"].cast(pa.string()),
        rows["date"].cast(pa.date32()),
        pa.ExtensionArray.from_storage(schema.field("embeddings").type, lists),
        # Exterior rings counterclockwise, as the metadata states.
        pa.array(shapely.to_wkb(shapely.orient_polygons(footprints)), pa.binary()),
        pa.StructArray.from_arrays(list(shapely.bounds(footprints).T), fields=list(BBOX)),
    ]
    return pa.table(columns, schema=schema)
