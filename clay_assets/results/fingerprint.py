"""What an embedding depends on besides its chip, and one word for a set of chips."""

import hashlib
import json
from collections.abc import Iterable, Mapping
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

    def differences(self, made: "Fingerprint") -> str:
        """How vectors made otherwise differ from this; "" where they do not."""
        return describe_differences(asdict(self), made)

    def to_json(self) -> str:
        """The fingerprint as one line of JSON, the same for equal fingerprints."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The fingerprint that `to_json` wrote."""
        return cls(**json.loads(text))


def describe_differences(wanted: Mapping[str, str | int | None], made: Fingerprint) -> str:
    """How vectors differ from what is wanted, for a person; "" where they do not.

    Args:
        wanted: Values by the fingerprint's field names; None is not compared.
        made: Of the vectors.
    """
    names = {"checkpoint_sha256": "checkpoint"}
    return ", ".join(
        f"{names.get(name, name)} {str(getattr(made, name))[:12]}, wanted {str(value)[:12]}"
        for name, value in wanted.items()
        if value is not None and getattr(made, name) != value
    )


def chips_digest(chips: Iterable[StoredObject]) -> str:
    """One short word for a set of chips in their present state: another chip or another ETag changes it."""
    lines = sorted(f"{chip.url}\t{chip.etag}\n" for chip in chips)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
