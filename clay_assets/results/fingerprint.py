"""Fingerprints of embeddings and of sets of chips."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from clay_assets.storage import StoredObject


@dataclass(frozen=True)
class Fingerprint:
    """All that an embedding depends on besides its chip; results are stored by it.

    Attributes:
        model: Model and size, e.g. `clay-v0-small`.
        checkpoint_sha256: Of the checkpoint file, in hexadecimal.
        level: How much of a chip one vector describes, e.g. `mean`.
        precision: `fp32` or `bf16`, already resolved.
        preprocessing: Version of the preprocessing of pixels, place and time.
    """

    model: str
    checkpoint_sha256: str
    level: str
    precision: str
    preprocessing: int

    @property
    def folder(self) -> str:
        """Folder name of such results, e.g. `clay-v0-small-mean-bf16-1f2e3d4c`."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.model}-{self.level}-{self.precision}-{digest[:8]}"


def chip_key(url: str, tile: str) -> str:
    """Return the part of a chip's URL below its tile's folder, which stays when the bucket moves."""
    return url.split(f"/{tile}/", 1)[-1]


def chips_digest(tile: str, chips: Iterable[StoredObject]) -> str:
    """Hash a tile's chips in their present state: another chip or another ETag changes it."""
    lines = sorted(f"{chip_key(chip.url, tile)}\t{chip.etag}\n" for chip in chips)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
