"""`read_embeddings`: published embeddings as a GeoDataFrame; `read_vectors`: the same as one array."""

from collections.abc import Collection, Sequence
from datetime import date

import geopandas
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from clay_assets.publishing.schema import COLUMNS, CRS, Bounds
from clay_assets.reading.facts import Facts, refuse_mixtures
from clay_assets.reading.files import SourceFile, Where, find_files
from clay_assets.reading.scan import Block, Task, blocks, footers, in_parallel, tasks
from clay_assets.reading.selection import Selection
from clay_assets.storage import S3Options

ALONGSIDE = tuple(name for name in COLUMNS if name != "embeddings")
"""The columns other than the vectors."""


def read_embeddings(
    where: Where,
    *,
    tiles: Collection[str] | None = None,
    bbox: Bounds | None = None,
    dates: tuple[date, date] | None = None,
    columns: Sequence[str] | None = None,
    version: int | None = None,
    options: S3Options | None = None,
) -> geopandas.GeoDataFrame:
    """Read published embeddings; only files and row groups that can match are read.

    Args:
        where: A folder, a file, or a list of either; local paths or `s3://bucket/prefix`.
        tiles: MGRS codes to read; None: all.
        bbox: West, south, east, north in degrees, west above east across the antimeridian. Rows whose
            footprint touches it are read.
        dates: First and last date of acquisition.
        columns: Some of `source_url`, `date`, `embeddings`, `geometry`; None: all. Geometry is always
            included. Without `embeddings`, no vectors are read.
        version: Version of the published files, if a folder has several.
        options: How to reach S3; None: the AWS SDK's own variables and files.

    Returns:
        One row per embedding, in the files' order, in OGC:CRS84. `embeddings` are float32 arrays of the
        level's shape, (D,) at levels with one vector a row. `attrs["clay"]` has the files' common provenance.

    Raises:
        MixedEmbeddings: Files of different models, levels or checkpoints, or several versions of a tile.
        NothingToRead: There is no Parquet file.
        DamagedFileError: A file can't be read as Parquet.
        StorageError: A store refuses.
        ValueError: An argument is invalid, or a file has no embeddings.
    """
    names = tuple(COLUMNS if columns is None else columns)
    unknown = sorted(set(names) - set(COLUMNS))
    if unknown:
        raise ValueError(f"got columns {unknown}; expected some of {', '.join(COLUMNS)}")
    selection = Selection.of(tiles, bbox, dates, version)
    rows, vectors, facts = _read(where, selection, names, options, vectors="embeddings" in names)
    frame = _frame(rows, facts)
    if "embeddings" in names:
        frame.insert(min(len(frame.columns), names.index("embeddings")), "embeddings", list(vectors))
    return frame


def read_vectors(
    where: Where,
    *,
    tiles: Collection[str] | None = None,
    bbox: Bounds | None = None,
    dates: tuple[date, date] | None = None,
    version: int | None = None,
    options: S3Options | None = None,
) -> tuple[geopandas.GeoDataFrame, NDArray[np.float32]]:
    """Read published embeddings with their vectors as one array.

    Args and raises: as `read_embeddings`.

    Returns:
        The rows without `embeddings`, and their vectors, (N, *shape) float32: (N, D) at levels with one
        vector a row.
    """
    selection = Selection.of(tiles, bbox, dates, version)
    rows, vectors, facts = _read(where, selection, ALONGSIDE, options, vectors=True)
    return _frame(rows, facts), vectors


def chosen_files(
    where: Where, selection: Selection, options: S3Options | None
) -> tuple[list[SourceFile], list[Facts]]:
    """Return the files that can match by name and footer, with their facts; all of one kind.

    Raises:
        MixedEmbeddings, NothingToRead, DamagedFileError, StorageError, ValueError: As `read_embeddings`.
    """
    files = [file for file in find_files(where, options) if selection.may_have(file)]
    facts = footers(files)
    refuse_mixtures(files, facts)
    near = [pair for pair in zip(files, facts, strict=True) if selection.may_be_in(pair[1])]
    # Facts are returned even without a match: an empty frame also has the files' provenance.
    return [file for file, _ in near], [fact for _, fact in near] or facts[:0]


def _read(
    where: Where, selection: Selection, names: Sequence[str], options: S3Options | None, *, vectors: bool
) -> tuple[pa.Table, NDArray[np.float32], Facts | None]:
    files, facts = chosen_files(where, selection, options)
    alongside = [name for name in ALONGSIDE if name in (*names, "geometry")]

    def read(task: Task) -> list[Block]:
        return list(blocks(task, alongside, selection, vectors=vectors))

    found = [block for piece in in_parallel(read, tasks(files, facts)) for block in piece]
    schema = pa.schema([("source_url", pa.string()), ("date", pa.date32()), ("geometry", pa.binary())])
    empty = schema.empty_table().select(alongside)
    rows = pa.concat_tables([empty, *(block.rows for block in found)], promote_options="permissive")
    shape = facts[0].shape if facts else ()
    if found and vectors:
        stacked = np.concatenate([block.vectors for block in found])
        return rows, stacked.reshape(len(stacked), *(shape or (-1,))), facts[0]
    return rows, np.empty((len(rows), *shape), dtype=np.float32), facts[0] if facts else None


def _frame(rows: pa.Table, facts: Facts | None) -> geopandas.GeoDataFrame:
    footprints = shapely.from_wkb(rows["geometry"].to_numpy())
    others = rows.drop_columns("geometry").replace_schema_metadata(None).to_pandas()
    frame = geopandas.GeoDataFrame(others, geometry=footprints, crs=CRS)
    frame.attrs["clay"] = dict(facts.provenance) if facts else {}
    return frame
