"""Writes a tile's rows as one GeoParquet file, in memory that does not grow with their number.

The caller orders the rows; `validation.py` reports a wrong order.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.parquet import vectors
from clay_assets.publishing.rows import Extent, RowsRefusedError, cut_footprints, described, row_faults
from clay_assets.publishing.schema import PREFIX, footer_metadata, geo_metadata, published_schema
from clay_assets.storage.folder import replacing

ROW_GROUP_BYTES = 32 * 2**20
"""Bytes of uncompressed vectors per row group: 10,922 rows at level mean, 42 at patch, 7 at group. The writer
holds at most two such groups, the one just written and the next; a tile at level mean is one group."""

# Mantissas look random, so a dictionary of floats only adds cost; splitting each float's four bytes into four
# streams groups signs and exponents, which do compress. Size against the raw float32, write speed, read speed
# in MB/s of raw floats, one thread of an AMD EPYC, ZSTD level 1, pyarrow 26:
#
#                                            dictionary (default)   plain            byte stream split
#   417 vectors that Clay published          141 %,  70, 319        93 %, 302, 407   83 %, 314, 552
#   96 at level patch (one, with noise)       94 %, 339, 472        92 %, 434, 486   80 %, 428, 633
#   the same, cut to bf16's mantissa          39 %, 262, 550        47 %, 128, 197   30 %, 479, 681
#
# Level 3 gains nothing; level 9 gains at most 0.8 % of the raw size and writes 1.7 to 3 times slower.
# DuckDB 1.0 and 2.0, geopandas 1.0 and 1.2, pyarrow 17 and 26 read it back. GDAL and QGIS were not tested;
# they read Parquet with the same Arrow C++ as pyarrow.
#
# URLs and dates repeat, so these have dictionaries. Statistics of vectors or of WKB do not help readers to
# skip.
PARQUET_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["source_url", "date"],
    "column_encoding": {"embeddings.list.element": "BYTE_STREAM_SPLIT"},
    "write_statistics": ["source_url", "date"],
    # The writer would serialize the Arrow schema when it opens, before the bounds are known.
    "store_schema": False,
}


def write_geoparquet(
    path: Path,
    batches: Iterable[pa.RecordBatch | pa.Table],
    shape: tuple[int, ...],
    provenance: Mapping[str, str],
) -> None:
    """Write rows to a GeoParquet 1.0.0 file at `path`, replacing an earlier one once complete.

    Missing folders are created.

    Args:
        path: A local file.
        batches: Rows in the order of date, then chip number, in batches of any length. Columns `source_url`
            string, `date` date32, `embeddings` fixed-size list of float32, `geometry` binary: a polygon's WKB
            in OGC:CRS84, which is cut if it crosses the antimeridian.
        shape: Shape of one embedding; its product is the fixed-size list's width.
        provenance: The file's provenance, by names without `clay:` (`PROVENANCE` and any others).

    Raises:
        RowsRefusedError: There are no rows; wrong columns, types or width; a null, a vector that is not
            finite, a geometry that is not a polygon. No partial file remains, and an earlier file at `path`
            stays.
        ValueError: A provenance name begins with `clay:`.
    """
    if prefixed := [name for name in provenance if name.startswith(PREFIX)]:
        raise ValueError(f"got provenance names {prefixed}; expected them without {PREFIX!r}")
    schema, width = published_schema(shape), math.prod(shape)
    full = max(1, ROW_GROUP_BYTES // (4 * width))  # rows of a group
    extent, total, places = Extent(), np.zeros(shape[-1]), 0  # the sum of the vectors of all rows and places
    pending, held = list[pa.Table](), 0  # tables of the next group, and their rows
    # We open the file: pyarrow leaves a file that it opened open if closing the writer fails.
    with replacing(path) as file, pq.ParquetWriter(file, schema, **PARQUET_OPTIONS) as writer:
        for rows in _accepted(batches, schema, width):
            extent.add(rows["geometry"].chunk(0))
            at_places = vectors(rows["embeddings"].chunk(0)).reshape(-1, shape[-1])
            total += at_places.sum(axis=0, dtype=np.float64)
            places += len(at_places)
            pending.append(rows)
            held += len(rows)
            if held >= full:  # joining the tables at every batch would take time quadratic in their number
                rest = pa.concat_tables(pending)
                while len(rest) >= full:
                    writer.write_table(rest.slice(0, full))
                    rest = rest.slice(full)
                pending, held = [rest], len(rest)
        if held:
            writer.write_table(pa.concat_tables(pending))
        if extent.bounds is None:
            raise RowsRefusedError(f"got no rows for {path.name}; expected at least one")
        # All bounds are known only now. Closing the writer puts this metadata into the footer.
        geo = geo_metadata(extent.bounds, extent.types, extent.counterclockwise)
        writer.add_key_value_metadata(footer_metadata(schema, geo, provenance, total / places))


def _accepted(
    pieces: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema, width: int
) -> Iterator[pa.Table]:
    """Yield the batches in the published schema, each as one chunk; refuse wrong columns and faulty rows."""
    for piece in pieces:
        for batch in piece.to_batches() if isinstance(piece, pa.Table) else [piece]:
            _require_columns(batch, schema, width)
            if faults := described(row_faults(batch)):
                raise RowsRefusedError(f"got {'; '.join(faults)}; expected none. Embed those chips again")
            # Rebuilt from the values (no copy): the tensor's storage requires its own name for the list's
            # child.
            values = pa.array(vectors(batch["embeddings"]).reshape(-1))
            lists = pa.FixedSizeListArray.from_arrays(values, width)
            tensors = pa.ExtensionArray.from_storage(schema.field("embeddings").type, lists)
            footprints = cut_footprints(batch["geometry"])
            yield pa.table([batch["source_url"], batch["date"], tensors, footprints], schema=schema)


def _require_columns(batch: pa.RecordBatch, schema: pa.Schema, width: int) -> None:
    if sorted(batch.schema.names) != sorted(schema.names):
        raise RowsRefusedError(f"got the columns {batch.schema.names}; expected {schema.names}")
    vector = batch["embeddings"].type
    if pa.types.is_fixed_size_list(vector) and vector.list_size != width and batch.num_rows:
        raise RowsRefusedError(
            f"got an embedding of {vector.list_size} values for {batch['source_url'][0]}; expected {width}. "
            "Embed the tile again at the level and with the model that this file is for"
        )
    expected = {name: schema.field(name).type for name in schema.names}
    expected["embeddings"] = pa.list_(pa.float32(), width)
    got = {name: batch[name].type for name in expected}
    wrong = [
        f"{name} as {got[name]}; expected {expected[name]}" for name in got if got[name] != expected[name]
    ]
    if wrong:
        raise RowsRefusedError(f"got {', and '.join(wrong)}")
