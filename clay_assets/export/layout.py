"""The order of an export: each row's grid zone, year and place along a Hilbert curve; rows in that order."""

import functools
import math
from collections.abc import Sequence

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from clay_assets.publishing.schema import CRS, parse_published_name
from clay_assets.reading.embeddings import ALONGSIDE
from clay_assets.reading.facts import Facts
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import Block, blocks, in_parallel, tasks

ROWS = 10_000
"""Approximate rows of a row group: half to one and a half times as many. Readers skip by its bounds."""

WORLD = (-180.0, -90.0, 180.0, 90.0)
LEVEL = 16
"""Level of the Hilbert curve: cells of 0.0055 degrees of longitude, an eighth of a chip at the equator."""

HELD_BYTES = 256 * 2**20
"""Decoded files kept in memory: neighbours on the curve come from the same few tiles."""


class NoGridZone(ValueError):
    """A file's name has no tile, so that the grid zone of its rows is unknown."""


def place_rows(files: Sequence[SourceFile], facts: Sequence[Facts]) -> pd.DataFrame:
    """Read every row's date and footprint.

    Returns:
        Sorted by its columns: `zone` (such as `27W`), `year`, `curve` (distance along the Hilbert curve),
        `file` (index into `files`) and `row` (within its file); 20 bytes a row.

    Raises:
        NoGridZone: A file's name has no tile.
    """
    names = [parse_published_name(file.name) for file in files]
    nameless = [file.name for file, name in zip(files, names, strict=True) if name is None]
    if nameless:
        raise NoGridZone(
            f"got {len(nameless)} files such as {nameless[0]}; expected published names such as"
            " 27WXN_20200101_20231231_v001.gpq, which contain the grid zone"
        )

    zones = [name.tile[:3] for name in names if name is not None]
    category = pd.CategoricalDtype(sorted(set(zones)))

    def read(index: int) -> pd.DataFrame:
        years, curves = [np.empty(0, np.int16)], [np.empty(0, np.int64)]
        for task in tasks([files[index]], [facts[index]]):
            for block in blocks(task, ["date", "geometry"], vectors=False):
                years.append(pc.year(block.rows["date"]).to_numpy().astype(np.int16))
                footprints = geopandas.GeoSeries(shapely.from_wkb(block.rows["geometry"].to_numpy()), crs=CRS)
                curves.append(footprints.hilbert_distance(WORLD, LEVEL).to_numpy().astype(np.int64))
        year = np.concatenate(years)
        return pd.DataFrame(
            {
                "zone": zones[index],
                "year": year,
                "curve": np.concatenate(curves),
                "file": np.full(len(year), index, np.int32),
                "row": np.arange(len(year), dtype=np.int32),
            }
        ).astype({"zone": category})

    placed = pd.concat(in_parallel(read, range(len(files))), ignore_index=True)
    return placed.sort_values(["zone", "year", "curve", "file", "row"], ignore_index=True)


def row_groups(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Split a partition into groups of about `ROWS`, equal within one row; a smaller one stays whole."""
    cuts = np.array_split(np.arange(len(rows)), max(1, math.floor(len(rows) / ROWS + 0.5)))
    return [rows.iloc[cut[0] : cut[-1] + 1] for cut in cuts]


class Gatherer:
    """Takes rows of a collection in any order; keeps only a few files decoded."""

    def __init__(self, files: Sequence[SourceFile], facts: Sequence[Facts]) -> None:
        self._files, self._facts = files, facts
        largest = max(fact.rows * (4 * fact.width + 256) for fact in facts)  # 256: URL, footprint, date
        self._file = functools.lru_cache(max(2, HELD_BYTES // largest))(self._read)

    def take(self, rows: pd.DataFrame) -> Block:
        """Return rows in the given order.

        Args:
            rows: Some rows of `place_rows`.
        """
        files, places = rows["file"].to_numpy(), rows["row"].to_numpy()
        pieces, vectors = [], []
        for index in np.unique(files):
            block, local = self._file(int(index)), places[files == index]
            pieces.append(block.rows.take(pa.array(local)))
            vectors.append(block.vectors[local])
        order = np.argsort(np.argsort(files, kind="stable"))
        table = pa.concat_tables(pieces, promote_options="permissive").take(pa.array(order))
        return Block(table, np.concatenate(vectors)[order])

    def _read(self, index: int) -> Block:
        parts = tasks([self._files[index]], [self._facts[index]])
        found = [block for part in parts for block in blocks(part, ALONGSIDE)]
        vectors: NDArray[np.float32] = np.concatenate([block.vectors for block in found])
        return Block(pa.concat_tables([block.rows for block in found]), vectors)
