"""Key-value metadata of a results file: its fingerprint, provenance, chips and summary, all in the footer."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from clay_assets.chips import READER_VERSION
from clay_assets.storage import StoredObject


@dataclass(frozen=True)
class Fingerprint:
    """All that an embedding depends on besides its chip; results are stored by it."""

    model: str  # model and size, e.g. `clay-v0-small`
    checkpoint_sha256: str  # of the checkpoint file, in hexadecimal
    level: str  # how much of a chip one vector describes, e.g. `mean`
    precision: str  # `fp32` or `bf16`, already resolved
    preprocessing: int  # version of the preprocessing of pixels, place and time

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


@dataclass(frozen=True)
class Provenance:
    """How a tile's vectors are made: the same for every tile of a run."""

    fingerprint: Fingerprint  # decides whether earlier vectors are still valid
    shape: tuple[int, ...]  # of one embedding
    untrained: bool  # whether the checkpoint's weights were never trained
    device: str  # of the encoder, e.g. `cpu` or `cuda:0`
    software: str = ""  # packages and versions, as `name/version` with spaces between
    reader: int = READER_VERSION
    max_nodata: float = 1.0  # highest accepted share of a chip's pixels without data

    @property
    def model(self) -> str:
        """Model and size, e.g. `clay-v0-small`."""
        return self.fingerprint.model

    @property
    def width(self) -> int:
        """Numbers in one embedding."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class TileSummary:
    """A tile's results in numbers, as the Dagster UI shows them."""

    embedded: int  # chips with a vector
    skipped: list[dict[str, str]]  # chips without, each by `source_url` with its `reason` and `detail`
    # Wall time from the end of the run's previous tile to the end of this tile's last chip: a run's tiles add
    # up to the time in which the run had something to embed.
    seconds: float
    encoded: int  # chips embedded in that run; the others had results already
    bytes_read: int  # of chips fetched in that run
    bounds: list[float]  # west, south, east, north of the embedded chips, degrees in OGC:CRS84; or empty
    nodata: float = 0.0  # mean share of the embedded chips' pixels without data, 0 to 1
    windows: int = 0  # vectors: one for each window of the embedded chips
    energy: dict[str, Any] | None = None  # `emb:energy` of the run that last embedded chips, if measured
    picture: str = field(default="", repr=False)  # as `picture.tile_picture` drew it

    @property
    def chips(self) -> int:
        """Chips accounted for."""
        return self.embedded + len(self.skipped)

    @property
    def reasons(self) -> dict[str, int]:
        """Number of skipped chips by reason, the most frequent first."""
        reasons = sorted(skip["reason"] for skip in self.skipped)
        return dict(Counter(reasons).most_common())

    @property
    def chips_per_second(self) -> float:
        """Rate of the run that last embedded chips of the tile."""
        return self.encoded / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class ResultsHeader:
    """Metadata of a results file."""

    provenance: Provenance
    digest: str  # `chips_digest` of the chips accounted for
    summary: TileSummary
    # Chips of the inventory not reached when an error or an interrupt ended the run; 0 in complete results.
    remaining: int = 0

    def to_metadata(self) -> dict[str, str]:
        """Return the Parquet key-value metadata."""
        return {
            "clay:making": json.dumps(asdict(self.provenance), sort_keys=True),
            "clay:chips": self.digest,
            "clay:summary": json.dumps(asdict(self.summary)),
            "clay:left": str(self.remaining),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes]) -> Self:
        """Parse the output of `to_metadata`.

        Raises KeyError, TypeError or ValueError if this version did not write it.
        """
        making = json.loads(metadata[b"clay:making"])
        making |= {"fingerprint": Fingerprint(**making["fingerprint"]), "shape": tuple(making["shape"])}
        return cls(
            Provenance(**making),
            metadata[b"clay:chips"].decode(),
            TileSummary(**json.loads(metadata[b"clay:summary"])),
            int(metadata[b"clay:left"]),
        )
