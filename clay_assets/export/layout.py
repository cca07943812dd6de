"""The order of an export: each row's grid zone, year and place along a Hilbert curve; rows in that order."""

import functools
from collections.abc import Sequence

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_assets.publishing.schema import CRS, parse_published_name
from clay_assets.reading.files import Facts
from clay_assets.reading.scan import OTHERS, Block, blocks, in_parallel, join, parts, read_all

ROWS = 10_000  # of a row group, half to one and a half times as many; readers skip by its bounds
HELD_BYTES = 256 * 2**20  # of decoded files: neighbours on the curve come from the same few tiles


def place_rows(files: Sequence[Facts]) -> pd.DataFrame:
    """Read every row's date and footprint.

    Returns:
        Sorted by its columns: `zone` (such as `27W`), `year`, `curve` (distance along the Hilbert curve),
        `file` (index into `files`) and `row` (within its file); 20 bytes a row.
    """
    names = [parse_published_name(facts.file.name) for facts in files]
    zones = [name.tile[:3] for name in names if name is not None]
    if len(zones) < len(names):
        raise ValueError(
            f"got {len(names) - len(zones)} files such as {files[names.index(None)].file.name}; expected"
            " published names such as 27WXN_20200101_20231231_v001.gpq, which contain the grid zone"
        )

    def read(part: Facts) -> list[pd.DataFrame]:
        return [_years_and_curves(block.rows) for block in blocks(part, ["date", "geometry"], vectors=False)]

    pieces = in_parallel(read, parts(files))
    placed = pd.concat([frame for piece in pieces for frame in piece], ignore_index=True)
    counts = [facts.rows for facts in files]
    placed["file"] = np.repeat(np.arange(len(files), dtype=np.int32), counts)
    placed["row"] = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    placed["zone"] = pd.Categorical(zones).repeat(counts)
    return placed.sort_values(["zone", "year", "curve", "file", "row"], ignore_index=True)


def _years_and_curves(rows: pa.Table) -> pd.DataFrame:
    footprints = geopandas.GeoSeries(shapely.from_wkb(rows["geometry"].to_numpy()), crs=CRS)
    # Level 16: cells of 0.0055 degrees of longitude, an eighth of a chip at the equator.
    curve = footprints.hilbert_distance((-180, -90, 180, 90), level=16).to_numpy().astype(np.int64)
    return pd.DataFrame({"year": pc.year(rows["date"]).to_numpy().astype(np.int16), "curve": curve})


def row_groups(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Split a partition into groups of about `ROWS`, equal within one row; a smaller one stays whole."""
    cuts = np.array_split(np.arange(len(rows)), max(1, round(len(rows) / ROWS)))
    return [rows.iloc[cut[0] : cut[-1] + 1] for cut in cuts]


class Gatherer:
    """Takes rows of a collection in any order; keeps only a few files decoded."""

    def __init__(self, files: Sequence[Facts]) -> None:
        largest = max(facts.rows * (4 * facts.width + 256) for facts in files)  # 256: URL, footprint, date
        held = max(2, HELD_BYTES // largest)
        self._file = functools.lru_cache(held)(lambda index: read_all([files[index]], OTHERS.names))

    def take(self, rows: pd.DataFrame) -> Block:
        """Return some rows of `place_rows`, in their order."""
        files, places = rows["file"].to_numpy(), rows["row"].to_numpy()
        pieces = []
        for index in np.unique(files):
            block, local = self._file(int(index)), places[files == index]
            pieces.append(Block(block.rows.take(pa.array(local)), block.vectors[local]))
        found, order = join(pieces), np.argsort(np.argsort(files, kind="stable"))
        return Block(found.rows.take(pa.array(order)), found.vectors[order])
