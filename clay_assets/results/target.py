"""What the settings ask for: which results count as current, and which version is published."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from clay_assets.results.fingerprint import Fingerprint
from clay_assets.results.reader import TileResults
from clay_assets.storage import Store

PRECISIONS: tuple[Literal["bf16", "fp32"], ...] = ("bf16", "fp32")
"""Those that a tile may have under `auto`, in the order in which they are looked for."""


@dataclass(frozen=True)
class Target:
    """How tiles are to be embedded.

    Under `auto` a tile keeps the precision that its results have, whatever the hardware of this run: the
    precision differs by 2.4e-3, which is no reason to embed an archive again on another machine.

    Attributes:
        fingerprints: Of results that count as current, in the order in which they are looked for.
        preferred: Of results that are made where a tile has none.
        untrained: Whether the checkpoint says that its weights were never trained.
        max_nodata: Highest share of a chip's pixels without data.
    """

    fingerprints: Sequence[Fingerprint]
    preferred: Fingerprint
    untrained: bool = False
    max_nodata: float = field(default=1.0)

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
        """What a checkpoint and the settings ask for.

        Args:
            model: Model and size.
            checkpoint_sha256: Of the checkpoint.
            level: How much of a chip one vector describes.
            precision: `auto`, `fp32` or `bf16`.
            preprocessing: The model's version of it.
            best: The precision to take under `auto` where a tile has no results: what the hardware
                multiplies.
            untrained: As the checkpoint says.
            max_nodata: Highest share of a chip's pixels without data.
        """
        found = {
            name: Fingerprint(model, checkpoint_sha256, level, name, preprocessing)
            for name in (PRECISIONS if precision == "auto" else (precision,))
        }
        preferred = found[best if precision == "auto" else precision]
        return cls(tuple(found.values()), preferred, untrained, max_nodata)

    def results(self, work: Store, tile: str) -> TileResults | None:
        """A tile's results that count as current; None where there are none. The caller closes them.

        Raises:
            StorageError: If the store refuses.
        """
        for fingerprint in self.fingerprints:
            found = TileResults.open(work, tile, fingerprint)
            if found is not None:
                return found
        return None
