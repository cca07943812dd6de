"""The states of a tile, and what a look at a tile shows."""

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
        "changed": "its chips are not those that were embedded: new, changed or removed ones",
        "stale": "the same chips, embedded with another checkpoint, level, precision or preprocessing",
        "unpublished": "embedded, but its published file is missing or of an earlier state",
        "current": "embedded and published as its chips are now",
        "unusable": "each of its chips was read and skipped: nothing to do until they change",
        "empty": "has no chips",
    }
)
"""Every state, those with work left first."""


@dataclass(frozen=True)
class TileStores:
    """Stores of chips, of results, of published files, and of their STAC catalog; None: none is kept."""

    chips: Store
    work: Store
    output: Store
    stac: Store | None = None


@dataclass(frozen=True)
class Rate:
    """How fast a tile was embedded, for the rate of many.

    Attributes:
        chips: Encoded in the run that last worked on the tile.
        seconds: Wall time that it took: `TileSummary.seconds`.
        model: Name of the network.
        device: It ran on.
    """

    chips: int
    seconds: float
    model: str
    device: str


@dataclass(frozen=True)
class TileState:
    """What a look at a tile showed.

    Attributes:
        tile: MGRS code.
        state: One of `STATES`.
        chips: Objects in the bucket that are chips by their names.
        bytes: Of all of them.
        todo: Chips to fetch and embed.
        todo_bytes: Of those.
        listed: One word for the chips listed: another chip or another ETag changes it.
        embedded: One word for the existing results: what was embedded, and how; "" where there are none.
        detail: More about the state, for a person; may be "".
        rate: How fast it was embedded; None if unknown.
    """

    tile: str
    state: State
    chips: int
    bytes: int
    todo: int
    todo_bytes: int
    listed: str
    embedded: str = ""
    detail: str = ""
    rate: Rate | None = None


def in_words(states: Iterable[TileState], where: str) -> str:
    """What was looked at and what was found: "looked at 40 tiles under s3://…: 38 current, 1 empty, …"."""
    counts = Counter(look.state for look in states)
    found = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "there are none"
    return f"looked at {counts.total()} tiles under {where}: {found}"
