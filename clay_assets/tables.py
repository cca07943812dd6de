"""The tables that pass between the assets: their schemas, and what makes one current.

Two Parquet files a tile lie under `CLAY_WORK_URI`: `chip_inventory/{MGRS}.parquet`, what there is, and
`chip_embeddings/{MGRS}.parquet`, what became of each chip. What people read is not here but in `geoparquet`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Self

import pyarrow as pa

from clay_assets.storage import StoredObject

INVENTORY = pa.schema(
    [
        pa.field("source_url", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # bytes
        pa.field("etag", pa.string(), nullable=False),
    ]
)
"""One row for each chip that the listing showed, in the order of date, then chip number."""

THUMBNAIL_SIZE = 16
"""Pixels along the side of a chip's true-colour thumbnail: 22 x 22 chips, a tile, are 352 pixels wide."""


def results_schema(width: int) -> pa.Schema:
    """Schema of what became of each chip: embedded, or skipped for a reason.

    Args:
        width: Numbers in one chip's embedding, all its dimensions multiplied.
    """
    return pa.schema(
        [
            pa.field("source_url", pa.string(), nullable=False),
            pa.field("etag", pa.string(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            # Of embedded chips:
            pa.field("date", pa.date32()),
            pa.field("embeddings", pa.list_(pa.float32(), width)),
            pa.field("geometry", pa.binary()),  # WKB polygon in OGC:CRS84
            pa.field("thumbnail", pa.binary(3 * THUMBNAIL_SIZE**2)),  # RGB bytes, row by row
            # Of skipped chips:
            pa.field("reason", pa.string()),
            pa.field("detail", pa.string()),
        ]
    )


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
