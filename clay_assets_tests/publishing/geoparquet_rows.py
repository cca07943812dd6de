"""Rows for the tests of the published file: invented vectors at the locations of a tile's chips.

The footprints come from pyproj: slightly rotated against the meridians, like those of chips in UTM.
"""

from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa
import pyproj
import shapely

PROVENANCE = {
    "model": "clay v0 small",
    "checkpoint_sha256": "0" * 64,
    "level": "mean",
    "precision": "fp32",
    "software": "clay-assets 0.1.0; torch 2.13.0",
}

DATES = (date(2020, 6, 15), date(2021, 7, 3))
FOLDER = "s3://clay-tiles-02/02/27WXN"


def urls(count: int) -> list[str]:
    """URLs of `count` chips, the first half of the earlier date, the others of the later."""
    return [
        f"{FOLDER}/{day}/claytile_27WXN_{day:%Y%m%d}_v02_{number:04}.tif" for day, number in _places(count)
    ]


def footprints(count: int) -> np.ndarray:
    """(count,) counterclockwise polygons in OGC:CRS84, of chips of 5,120 m in a column of UTM zone 27."""
    to_degrees = pyproj.Transformer.from_crs("EPSG:32627", "OGC:CRS84", always_xy=True)
    squares = shapely.box(600_000, south := 7_000_000 + 5120 * np.arange(count), 605_120, south + 5120)
    polygons: np.ndarray = shapely.transform(
        squares, lambda xy: np.stack(to_degrees.transform(*xy.T), axis=1)
    )
    return polygons


def vectors(count: int, shape: tuple[int, ...]) -> np.ndarray:
    """(count, product of shape) float32, a different number in every position."""
    width = int(np.prod(shape))
    return np.random.default_rng(count).standard_normal((count, width), dtype=np.float32)


def rows(count: int, shape: tuple[int, ...] = (768,)) -> pa.RecordBatch:
    """A batch of `count` rows as the writer takes them."""
    flat = vectors(count, shape)
    columns = {
        "source_url": pa.array(urls(count), pa.string()),
        "date": pa.array([day for day, _ in _places(count)], pa.date32()),
        "embeddings": pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1]),
        "geometry": pa.array(shapely.to_wkb(footprints(count)), pa.binary()),
    }
    return pa.record_batch(columns)


def with_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    """The batch with one column replaced."""
    return pa.record_batch({n: column if n == name else batch[n] for n in batch.schema.names})


def _places(count: int) -> Iterator[tuple[date, int]]:
    half = (count + 1) // 2
    for index in range(count):
        yield (DATES[0], index + 1) if index < half else (DATES[1], index - half + 1)
