"""Counts a tile's outcomes, and gathers the data of its picture: about 4 kB a chip."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from clay_assets.chips import MAX_CHIP_BYTES
from clay_assets.chips.place import bounds_of
from clay_assets.parquet import vectors
from clay_assets.results import TileSummary
from clay_assets.results.outcomes import Outcome, Skipped
from clay_assets.results.picture import tile_picture
from clay_assets.storage import StoredObject


class TileCounts:
    """A tile's outcomes so far.

    Attributes:
        accounted: Chips with an outcome.
        read: Number of chips that this run processed.
    """

    def __init__(self, dim: int) -> None:
        """Start at zero for vectors of `dim` numbers at one place: the last axis of the level's shape."""
        self.accounted: list[StoredObject] = []
        self.read = 0
        self._dim = dim
        self._encoded = 0
        self._embedded = 0
        self._bytes_read = 0
        self._skipped: list[dict[str, str]] = []
        self._footprints: list[bytes] = []
        self._dates: list[date] = []
        self._colours_from: list[NDArray[np.float32]] = []
        self._thumbnails: list[bytes] = []
        self._nodata: list[float] = []

    def count(self, outcome: Outcome) -> None:
        """Count a chip of this run."""
        self.accounted.append(outcome.chip)
        self.read += 1
        if outcome.chip.size <= MAX_CHIP_BYTES:  # a larger one is skipped without being fetched
            self._bytes_read += outcome.chip.size
        if isinstance(outcome, Skipped):
            self._skip(outcome.chip, outcome.reason, outcome.detail)
            return
        self._encoded += 1
        self._embedded += 1
        for window in zip(outcome.footprints, outcome.vectors, outcome.thumbnails, strict=True):
            self._show(outcome.date, *window, outcome.nodata)

    def count_kept(self, table: pa.Table) -> None:
        """Count chips of an earlier run by rows of its results; all windows of a chip."""
        for batch in table.to_batches():
            numbers = vectors(batch["embeddings"])
            for vector, row in zip(numbers, batch.drop_columns("embeddings").to_pylist(), strict=True):
                chip = StoredObject(row["source_url"], row["size"], row["etag"])
                if row["window"] == 0:
                    self.accounted.append(chip)
                    self._embedded += row["reason"] is None
                if row["reason"] is not None:
                    self._skip(chip, row["reason"], row["detail"])
                else:
                    self._show(row["date"], row["geometry"], vector, row["thumbnail"], row["nodata"])

    def _skip(self, chip: StoredObject, reason: str, detail: str) -> None:
        self._skipped.append({"source_url": chip.url, "reason": reason, "detail": detail})

    def _show(
        self, day: date, footprint: bytes, vector: NDArray[np.float32], thumbnail: bytes, nodata: float
    ) -> None:
        self._dates.append(day)
        self._footprints.append(footprint)
        # A colour needs one (D,) vector per window, at any level: the mean over its places.
        self._colours_from.append(vector.reshape(-1, self._dim).mean(axis=0))
        self._thumbnails.append(thumbnail)
        self._nodata.append(nodata)

    def summary(self, *, seconds: float, energy: dict[str, Any] | None = None) -> TileSummary:
        """Return the tile in numbers and as a picture.

        Args:
            seconds: Wall time that this run spent on the tile.
            energy: `emb:energy` of that time; None if it was not measured.
        """
        windows = len(self._footprints)
        stacked = np.stack(self._colours_from) if windows else np.empty((0, self._dim), dtype=np.float32)
        bounds = bounds_of(shapely.from_wkb(self._footprints)) if windows else ()
        return TileSummary(
            embedded=self._embedded,
            windows=windows,
            energy=energy,
            skipped=self._skipped,
            seconds=seconds,
            encoded=self._encoded,
            bytes_read=self._bytes_read,
            bounds=[float(edge) for edge in bounds],
            nodata=float(np.mean(self._nodata)) if windows else 0.0,
            picture=tile_picture(self._footprints, self._dates, stacked, self._thumbnails),
        )


def count_reasons(skipped: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """Return the number of skipped chips for each reason, the most frequent first."""
    counts: dict[str, int] = {}
    for skip in skipped:
        counts[skip["reason"]] = counts.get(skip["reason"], 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
