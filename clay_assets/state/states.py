"""The states of a tile: from `new` to `current`."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from clay_assets.storage import Store

State = Literal["new", "changed", "stale", "unpublished", "current", "unusable", "empty"]

STATES: Mapping[State, str] = MappingProxyType(
    {
        "new": "has chips, none embedded",
        "changed": "its chips differ from those embedded: some are new, changed or removed",
        "stale": "the same chips, embedded with another checkpoint, level, precision or preprocessing",
        "unpublished": "embedded, but its published file is missing or outdated",
        "current": "embedded and published as its chips are now",
        "unusable": "every chip was read and skipped: nothing to do until the chips change",
        "empty": "has no chips",
    }
)
"""Every state with its meaning; those that need work come first."""


@dataclass(frozen=True)
class TileStores:
    """Stores of chips, results, published files and the STAC catalog. `stac` None: no catalog is written."""

    chips: Store
    work: Store
    output: Store
    stac: Store | None = None


@dataclass(frozen=True)
class Rate:
    """How fast a tile was embedded.

    Attributes:
        chips: Encoded in the run that last worked on the tile.
        seconds: Wall time of that: `TileSummary.seconds`.
        model: Name of the network.
        device: Device that it ran on.
    """

    chips: int
    seconds: float
    model: str
    device: str


@dataclass(frozen=True)
class TileState:
    """The state of a tile, with what a run would do.

    Attributes:
        tile: MGRS code.
        state: One of `STATES`.
        chips: Objects in the bucket that are chips by their names.
        bytes: Total size of the chips.
        to_embed: Chips to fetch and embed.
        to_embed_bytes: Total size of the chips to embed.
        chips_digest: Digest of the listed chips: another chip or another ETag changes it.
        inputs: Digest of the existing results (`publishing.publish.inputs_of`): what was embedded, and how;
            "" if there are none.
        detail: More about the state, as text for people; may be "".
        rate: How fast it was embedded; None if unknown.
    """

    tile: str
    state: State
    chips: int
    bytes: int
    to_embed: int
    to_embed_bytes: int
    chips_digest: str
    inputs: str = ""
    detail: str = ""
    rate: Rate | None = None


def summarize(states: Iterable[TileState], where: str) -> str:
    """Count states: "checked 40 tiles under s3://…: 1 new, 38 current, 1 empty"."""
    counts = Counter(tile.state for tile in states)
    found = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "no tiles"
    return f"checked {counts.total():,} tiles under {where}: {found}"
