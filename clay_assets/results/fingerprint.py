"""What an embedding depends on besides its chip, and one word for a set of chips."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Self

from clay_assets.storage import StoredObject


@dataclass(frozen=True)
class Fingerprint:
    """What an embedding depends on besides its chip; vectors of another fingerprint are stale.

    Attributes:
        checkpoint_sha256: Of the checkpoint file, in hexadecimal.
        level: `mean`, `patch` or `group`.
        precision: `fp32` or `bf16`, already resolved.
        preprocessing: `clay_model.spec.PREPROCESSING_VERSION`.
    """

    checkpoint_sha256: str
    level: str
    precision: str
    preprocessing: int

    def to_json(self) -> str:
        """The fingerprint as one line of JSON, the same for equal fingerprints."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The fingerprint that `to_json` wrote."""
        return cls(**json.loads(text))


def chips_digest(chips: Iterable[StoredObject]) -> str:
    """One short word for a set of chips in their present state: another chip or another ETag changes it."""
    lines = sorted(f"{chip.url}\t{chip.etag}\n" for chip in chips)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
