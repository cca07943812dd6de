"""Target settings: which results count as current, and which settings a tile without results gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from clay_assets.results.fingerprint import Fingerprint
from clay_assets.results.reader import TileResults
from clay_assets.storage import Store

PRECISIONS: tuple[Literal["bf16", "fp32"], ...] = ("bf16", "fp32")
"""Accepted under `auto`, in this order."""


@dataclass(frozen=True)
class Target:
    """Target settings of the embedding.

    Under `auto` a tile keeps the precision of its results on any hardware: precisions differ by 2.4e-3, too
    little to embed an archive again.

    Attributes:
        fingerprints: Fingerprints of results that count as current, in the order of preference.
        preferred: Fingerprint for a tile without results.
        untrained: Whether the checkpoint's weights were never trained.
        max_nodata: Highest accepted share of a chip's pixels without data.
    """

    fingerprints: Sequence[Fingerprint]
    preferred: Fingerprint
    untrained: bool = False
    max_nodata: float = 1.0

    @classmethod
    def of(
        cls,
        *,
        model: str,
        checkpoint_sha256: str,
        level: str,
        precision: str,
        preprocessing: int,
        best: str = "fp32",
        untrained: bool = False,
        max_nodata: float = 1.0,
    ) -> "Target":
        """Combine the checkpoint's description and the settings.

        Args:
            model: Model and size.
            checkpoint_sha256: Of the checkpoint.
            level: How much of a chip one vector describes.
            precision: `auto`, `fp32` or `bf16`.
            preprocessing: Version of the model's preprocessing.
            best: Precision under `auto` of a tile without results: the best that the hardware multiplies.
            untrained: Whether the checkpoint's weights were never trained.
            max_nodata: Highest accepted share of a chip's pixels without data.
        """
        found = {
            name: Fingerprint(model, checkpoint_sha256, level, name, preprocessing)
            for name in (PRECISIONS if precision == "auto" else (precision,))
        }
        preferred = found[best if precision == "auto" else precision]
        return cls(tuple(found.values()), preferred, untrained, max_nodata)

    def results(self, work: Store, tile: str) -> TileResults | None:
        """Open a tile's current results; None if there are none. The caller closes them.

        Raises:
            StorageError: If the store refuses.
        """
        for fingerprint in self.fingerprints:
            found = TileResults.open(work, tile, fingerprint)
            if found is not None:
                return found
        return None
