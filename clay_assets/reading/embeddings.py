"""`read_embeddings`: published embeddings as a GeoDataFrame; `read_vectors`: the same as one array."""

from collections.abc import Collection, Sequence
from datetime import date

import geopandas
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from clay_assets.publishing.schema import COLUMNS, CRS, Bounds
from clay_assets.reading.files import Facts, Where, find_files, refuse_mixtures
from clay_assets.reading.scan import OTHERS, footers, read_all
from clay_assets.reading.selection import Selection
from clay_assets.storage import S3Options


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
    names = COLUMNS if columns is None else tuple(columns)
    unknown = sorted(set(names) - set(COLUMNS))
    if unknown:
        raise ValueError(f"got columns {unknown}; expected some of {', '.join(COLUMNS)}")
    frame, vectors = _read(where, Selection(tiles, bbox, dates, version), names, options)
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
    return _read(where, Selection(tiles, bbox, dates, version), COLUMNS, options)


def chosen_files(where: Where, selection: Selection, options: S3Options | None) -> list[Facts]:
    """Return the files that can match by name and footer; all of one kind. Raises as `read_embeddings`."""
    files = footers(file for file in find_files(where, options) if selection.may_have(file))
    refuse_mixtures(files)
    # One file even without a match: an empty frame also has the files' provenance.
    return [facts for facts in files if selection.may_be_in(facts)] or files[:1]


def _read(
    where: Where, selection: Selection, names: Sequence[str], options: S3Options | None
) -> tuple[geopandas.GeoDataFrame, NDArray[np.float32]]:
    """Return the rows with the columns `names` and `geometry`; vectors only if `names` has `embeddings`."""
    files = chosen_files(where, selection, options)
    columns = [name for name in OTHERS.names if name in (*names, "geometry")]
    rows, vectors = read_all(files, columns, selection, vectors="embeddings" in names)
    if "embeddings" in names and files and files[0].shape:
        vectors = vectors.reshape(-1, *files[0].shape)
    return frame_of(rows, files[0].provenance if files else {}), vectors


def frame_of(rows: pa.Table, provenance: dict[str, str]) -> geopandas.GeoDataFrame:
    """Return rows, with their geometry as the last column, and the provenance as `attrs["clay"]`."""
    footprints = shapely.from_wkb(rows["geometry"].to_numpy())
    others = rows.drop_columns("geometry").replace_schema_metadata(None).to_pandas()
    frame = geopandas.GeoDataFrame(others, geometry=footprints, crs=CRS)
    frame.attrs["clay"] = dict(provenance)
    return frame
