"""Parquet key-value metadata of a results file: readable from its footer alone."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from clay_assets.chips import READER_VERSION
from clay_assets.results.fingerprint import Fingerprint


@dataclass(frozen=True)
class TileSummary:
    """A tile's results in numbers, as the Dagster UI shows them.

    Attributes:
        embedded: Chips with a vector.
        skipped: Chips without, each by URL with its reason and detail.
        seconds: Wall time from the end of the previous tile of the run to the end of this tile's last chip: a
            run's tiles add up to the time in which the run had something to embed.
        encoded: Chips embedded in that run; the others had results already.
        bytes_read: Bytes of chips fetched in that run.
        bounds: West, south, east, north of the embedded chips, degrees in OGC:CRS84; empty without any.
        nodata: Mean share of the embedded chips' pixels without data, 0 to 1.
        windows: Vectors: one for each window of the embedded chips.
        energy: `emb:energy` of the run that last embedded chips of the tile; None if it was not measured.
        picture: The tile as `picture.tile_picture` drew it.
    """

    embedded: int
    skipped: list[dict[str, str]]
    seconds: float
    encoded: int
    bytes_read: int
    bounds: list[float]
    nodata: float = 0.0
    windows: int = 0
    energy: dict[str, Any] | None = None
    picture: str = field(default="", repr=False)

    @property
    def chips(self) -> int:
        """Chips accounted for."""
        return self.embedded + len(self.skipped)

    @property
    def chips_per_second(self) -> float:
        """Rate of the run that last embedded chips of the tile."""
        return self.encoded / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Provenance:
    """How a tile's vectors are made: the same for every tile of a run.

    Attributes:
        fingerprint: Decides whether earlier vectors are still valid.
        shape: Shape of one embedding.
        untrained: Whether the checkpoint's weights were never trained.
        device: Device of the encoder, e.g. `cpu` or `cuda:0`.
        software: Packages and versions, as `name/version` with spaces between.
        reader: `chips.READER_VERSION`.
        max_nodata: Highest accepted share of a chip's pixels without data.
    """

    fingerprint: Fingerprint
    shape: tuple[int, ...]
    untrained: bool
    device: str
    software: str = ""
    reader: int = READER_VERSION
    max_nodata: float = 1.0

    @property
    def model(self) -> str:
        """Model and size, e.g. `clay-v0-small`."""
        return self.fingerprint.model

    @property
    def width(self) -> int:
        """Numbers in one embedding."""
        return math.prod(self.shape)

    def to_json(self) -> str:
        """Serialize as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the output of `to_json`."""
        facts = json.loads(text)
        facts |= {"fingerprint": Fingerprint(**facts["fingerprint"]), "shape": tuple(facts["shape"])}
        return cls(**facts)


@dataclass(frozen=True)
class ResultsHeader:
    """Metadata of a results file.

    Attributes:
        provenance: How the vectors were made.
        digest: `chips_digest` of the chips accounted for.
        summary: The results in numbers.
        remaining: Chips of the inventory not reached when an error or an interrupt ended the run; 0 if the
            results are complete.
    """

    provenance: Provenance
    digest: str
    summary: TileSummary
    remaining: int = 0

    def to_metadata(self) -> dict[str, str]:
        """Return the Parquet key-value metadata."""
        return {
            "clay:making": self.provenance.to_json(),
            "clay:chips": self.digest,
            "clay:summary": json.dumps(asdict(self.summary)),
            "clay:left": str(self.remaining),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes]) -> Self:
        """Parse the output of `to_metadata`.

        Raises:
            KeyError, TypeError, ValueError: If the file is not one of ours, or another version's.
        """
        return cls(
            provenance=Provenance.from_json(metadata[b"clay:making"].decode()),
            digest=metadata[b"clay:chips"].decode(),
            summary=TileSummary(**json.loads(metadata[b"clay:summary"])),
            remaining=int(metadata[b"clay:left"]),
        )
