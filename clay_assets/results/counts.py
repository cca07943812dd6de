"""Counts a tile's outcomes, and gathers the data of its picture: about 4 kB a chip."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from clay_assets.chips import MAX_CHIP_BYTES
from clay_assets.chips.place import bounds_of
from clay_assets.parquet import vectors
from clay_assets.results.header import TileSummary
from clay_assets.results.outcomes import Embedded, Outcome, rows_of
from clay_assets.results.picture import tile_picture
from clay_assets.storage import StoredObject


class TileCounts:
    """A tile's outcomes so far."""

    def __init__(self, dim: int) -> None:
        """Start at zero for vectors of `dim` numbers at one place: the last axis of the level's shape."""
        self.accounted: list[StoredObject] = []  # chips with an outcome
        self.read = 0  # chips that this run processed
        self._dim = dim
        self._encoded = 0
        self._bytes_read = 0
        self._skipped: list[dict[str, str]] = []
        self._windows: list[dict[str, Any]] = []  # rows of embedded chips, with (dim,) vectors

    def count(self, outcome: Outcome) -> None:
        """Count a chip of this run."""
        self.read += 1
        self._encoded += isinstance(outcome, Embedded)
        if outcome.chip.size <= MAX_CHIP_BYTES:  # a larger one is skipped without being fetched
            self._bytes_read += outcome.chip.size
        for row in rows_of(outcome):
            self._count_row(row)

    def count_kept(self, table: pa.Table) -> None:
        """Count chips of an earlier run by rows of its results; all windows of a chip."""
        for batch in table.to_batches():
            rows = batch.drop_columns("embeddings").to_pylist()
            for row, vector in zip(rows, vectors(batch["embeddings"]), strict=True):
                self._count_row({**row, "embeddings": vector})

    def _count_row(self, row: Mapping[str, Any]) -> None:
        if row["window"] == 0:
            self.accounted.append(StoredObject(row["source_url"], row["size"], row["etag"]))
        if row["reason"] is not None:
            self._skipped.append({name: row[name] for name in ("source_url", "reason", "detail")})
        else:
            # A colour needs one vector per window, at any level: the mean over its places.
            mean = row["embeddings"].reshape(-1, self._dim).mean(axis=0)
            self._windows.append({**row, "embeddings": mean})

    def summary(self, *, seconds: float, energy: dict[str, Any] | None = None) -> TileSummary:
        """Return the tile in numbers and as a picture, after `seconds` of this run."""
        footprints, dates, means, thumbnails = (
            [row[name] for row in self._windows] for name in ("geometry", "date", "embeddings", "thumbnail")
        )
        picture = tile_picture(footprints, dates, np.array(means), thumbnails)
        return replace(self.numbers(seconds), energy=energy, picture=picture)

    def numbers(self, seconds: float) -> TileSummary:
        """Return the tile in numbers, without its picture."""
        footprints = [row["geometry"] for row in self._windows]
        return TileSummary(
            embedded=len(self.accounted) - len(self._skipped),
            skipped=self._skipped,
            seconds=seconds,
            encoded=self._encoded,
            bytes_read=self._bytes_read,
            bounds=list(bounds_of(shapely.from_wkb(footprints))) if footprints else [],
            nodata=float(np.mean([row["nodata"] for row in self._windows])) if footprints else 0.0,
            windows=len(footprints),
        )
