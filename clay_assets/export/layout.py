"""Which row goes where: its grid zone and year, and its place along a Hilbert curve.

Only dates and outlines are read. What is held of a row are 26 bytes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import geopandas
import numpy as np
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from clay_assets.publishing import parse_published_name
from clay_assets.publishing.schema import CRS
from clay_assets.reading.facts import Facts
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import at_once, blocks, tasks

ROWS = 10_000
"""Rows of a row group, about; between half as many and as many again; readers skip by their bounds."""

WORLD = (-180.0, -90.0, 180.0, 90.0)
LEVEL = 16
"""Of the Hilbert curve: cells of 0.0055 degrees of longitude, an eighth of a chip at the equator."""


class NoGridZone(ValueError):
    """A file's name says no tile, so that its rows have no grid zone."""


@dataclass(frozen=True, eq=False)
class Placed:
    """All rows of a collection by where they go.

    Attributes:
        zones: Grid zones that occur, such as `27W`.
        zone: (N,) index into `zones`.
        year: (N,) of acquisition.
        curve: (N,) distance along the Hilbert curve.
        file: (N,) index of the row's file.
        row: (N,) the row within its file.
    """

    zones: list[str]
    zone: NDArray[np.int32]
    year: NDArray[np.int16]
    curve: NDArray[np.int64]
    file: NDArray[np.int32]
    row: NDArray[np.int32]

    def partitions(self) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
        """Each zone and year with its rows, as indices in Hilbert order, then the files'."""
        order = np.lexsort((self.row, self.file, self.curve, self.year, self.zone))
        changes = np.diff(self.zone[order]) | np.diff(self.year[order])
        for part in np.split(order, np.flatnonzero(changes) + 1):
            if len(part):
                yield self.zones[self.zone[part[0]]], int(self.year[part[0]]), part


def place_rows(files: Sequence[SourceFile], facts: Sequence[Facts]) -> Placed:
    """Look at every row's date and outline.

    Raises:
        NoGridZone: A file's name says no tile.
    """
    names = [parse_published_name(file.name) for file in files]
    nameless = [file.name for file, name in zip(files, names, strict=True) if name is None]
    if nameless:
        raise NoGridZone(
            f"got {len(nameless)} files such as {nameless[0]}; expected published names such as"
            " 27WXN_20200101_20231231_v001.gpq, which say the grid zone"
        )
    zone_of = [name.tile[:3] for name in names if name is not None]
    zones = sorted(set(zone_of))

    def look(index: int) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        years, curves = [np.empty(0, np.int16)], [np.empty(0, np.int64)]
        for task in tasks([files[index]], [facts[index]]):
            for block in blocks(task, ["date", "geometry"], vectors=False):
                years.append(pc.year(block.rows["date"]).to_numpy().astype(np.int16))
                outlines = geopandas.GeoSeries(shapely.from_wkb(block.rows["geometry"].to_numpy()), crs=CRS)
                curves.append(outlines.hilbert_distance(WORLD, LEVEL).to_numpy().astype(np.int64))
        return np.concatenate(years), np.concatenate(curves)

    found = list(at_once(look, range(len(files))))
    lengths = [len(years) for years, _ in found]
    return Placed(
        zones=zones,
        zone=np.repeat(np.array([zones.index(zone) for zone in zone_of], np.int32), lengths),
        year=np.concatenate([years for years, _ in found]),
        curve=np.concatenate([curve for _, curve in found]),
        file=np.repeat(np.arange(len(files), dtype=np.int32), lengths),
        row=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
    )


def row_groups(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut a partition into groups of about `ROWS`, alike in size; one group, if it has fewer."""
    return np.array_split(rows, max(1, math.floor(len(rows) / ROWS + 0.5)))
