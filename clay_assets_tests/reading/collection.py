"""A small collection of published files for the tests of reading, searching and exporting.

Two tiles on two dates, adjacent chips of 5,120 m; vectors that differ a little around one common vector,
as trained weights give them. Written by the package's own writer.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from clay_assets.publishing.schema import PublishedName
from clay_assets.publishing.writer import write_geoparquet

DAYS = (date(2020, 6, 15), date(2021, 7, 3))
SOUTH = {"27WXM": 7_100_000, "27WXN": 7_200_000}
"""Northing of each tile's chips, metres of UTM zone 27."""

PROVENANCE = {
    "model": "clay-v0-small",
    "weights": "as the checkpoint has them",
    "checkpoint_sha256": "c" * 64,
    "level": "mean",
    "precision": "fp32",
    "preprocessing": "1",
    "chips": "25",
    "skipped": "1",
    "inputs": "0123456789abcdef",
    "software": "clay-assets/0.1.0 torch/2.13.0 python/3.11.0",
}
CHIPS = 12
"""Chips per tile and date."""

WIDTH = 48


def chip_url(tile: str, day: date, number: int) -> str:
    return f"s3://chips/{tile}/{day}/claytile_{tile}_{day:%Y%m%d}_v02_{number:04}.tif"


def squares(tile: str, count: int = CHIPS) -> NDArray[np.object_]:
    """(count,) polygons in OGC:CRS84, four chips a row."""
    index = np.arange(count)
    west, south = 600_000 + 5_120 * (index % 4), SOUTH[tile] + 5_120 * (index // 4)
    to_degrees = pyproj.Transformer.from_crs("EPSG:32627", "OGC:CRS84", always_xy=True)
    boxes = shapely.box(west, south, west + 5_120, south + 5_120)
    polygons: NDArray[np.object_] = shapely.transform(
        boxes, lambda xy: np.stack(to_degrees.transform(*xy.T), 1)
    )
    return polygons


def clay_like(count: int, seed: int, width: int = WIDTH) -> NDArray[np.float32]:
    """(count, width): a common part, the same for every seed, and a smaller individual part."""
    common = np.random.default_rng(99).standard_normal(width)
    own = np.random.default_rng(seed).standard_normal((count, width))
    return ((common + 0.2 * own) * 2 / np.sqrt(width)).astype(np.float32)


def rows(tile: str, seed: int, shape: tuple[int, ...] = (WIDTH,), days: tuple[date, ...] = DAYS) -> pa.Table:
    """`CHIPS` rows of each day."""
    width = int(np.prod(shape))
    flat = clay_like(CHIPS * len(days), seed, width)
    return pa.table(
        {
            "source_url": [chip_url(tile, day, n + 1) for day in days for n in range(CHIPS)],
            "date": pa.array([day for day in days for _ in range(CHIPS)], pa.date32()),
            "embeddings": pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), width),
            "geometry": pa.array([*shapely.to_wkb(squares(tile))] * len(days), pa.binary()),
        }
    )


def write(
    folder: Path,
    tile: str,
    seed: int,
    *,
    shape: tuple[int, ...] = (WIDTH,),
    version: int = 1,
    provenance: Mapping[str, str] = PROVENANCE,
    days: tuple[date, ...] = DAYS,
) -> Path:
    """Write one tile's file."""
    path = folder / str(PublishedName(tile, days[0], days[-1], version))
    write_geoparquet(path, [rows(tile, seed, shape, days)], shape, provenance)
    return path


def write_collection(folder: Path) -> Path:
    """Write both tiles; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, tile in enumerate(SOUTH):
        write(folder, tile, seed)
    return folder
