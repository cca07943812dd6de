"""The states of a tile, from `new` to `current`, and texts that summarize those of many tiles."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clay_assets.storage import Store

State = Literal["new", "changed", "stale", "unpublished", "current", "unusable", "empty"]

STATES: Mapping[State, str] = {
    "new": "has chips, none embedded",
    "changed": "its chips differ from those embedded: some are new, changed or removed",
    "stale": "the same chips, embedded with another checkpoint, level, precision or preprocessing",
    "unpublished": "embedded, but its published file is missing or outdated",
    "current": "embedded and published as its chips are now",
    "unusable": "every chip was read and skipped: nothing to do until the chips change",
    "empty": "has no chips",
}
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
    """How fast a tile was embedded."""

    chips: int  # encoded in the run that last worked on the tile
    seconds: float  # wall time of that: `TileSummary.seconds`
    model: str
    device: str


@dataclass(frozen=True)
class TileState:
    """The state of a tile, with what a run would do."""

    tile: str
    state: State
    chips: int  # objects in the bucket that are chips by their names
    bytes: int  # of all chips
    to_embed: int  # chips to fetch and embed
    to_embed_bytes: int
    chips_digest: str  # of the listed chips: another chip or another ETag changes it
    inputs: str = ""  # `inputs_of` the existing results: what was embedded, and how; "" if there are none
    detail: str = ""  # more about the state, as text for people
    rate: Rate | None = None  # how fast it was embedded; None if unknown


def summarize(states: Iterable[TileState], where: str) -> str:
    """Count states: "checked 40 tiles under s3://…: 1 new, 38 current, 1 empty"."""
    counts = Counter(tile.state for tile in states)
    found = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "no tiles"
    return f"checked {counts.total():,} tiles under {where}: {found}"


def state_table(states: Sequence[TileState]) -> list[str]:
    """Return one line per state: tiles, chips, bytes, and the meaning of the state."""
    row = "{:<12} {:>7} {:>11} {:>10} {:>11}  {}".format
    lines = [row("state", "tiles", "chips", "size", "to embed", "")]
    for state, meaning in [*STATES.items(), ("all", "")]:
        tiles = [tile for tile in states if state in (tile.state, "all")]
        chips, to_embed = sum(tile.chips for tile in tiles), sum(tile.to_embed for tile in tiles)
        size = human_size(sum(tile.bytes for tile in tiles))
        if tiles:
            lines.append(row(state, f"{len(tiles):,}", f"{chips:,}", size, f"{to_embed:,}", meaning))
    return [line.rstrip() for line in lines]


def outlook(states: Sequence[TileState]) -> list[str]:
    """Return how many chips remain to be embedded, and how long that takes at the rate of earlier runs."""
    chips = sum(tile.to_embed for tile in states)
    if not chips:
        return ["Nothing remains to be embedded."]
    size = human_size(sum(tile.to_embed_bytes for tile in states))
    remaining = f"{chips:,} chips ({size}) remain to be embedded."
    groups: dict[tuple[str, str], list[Rate]] = defaultdict(list)
    for rate in (tile.rate for tile in states if tile.rate is not None):
        groups[rate.model, rate.device].append(rate)
    if not groups:
        return [remaining, "The rate is unknown until one of these tiles has been embedded."]
    # The next run probably uses the model and device with the most chips.
    rates = max(groups.values(), key=lambda group: sum(rate.chips for rate in group))
    embedded = sum(rate.chips for rate in rates)
    # The mean over all tiles: a single tile's rate depends on what else its run embedded at the time.
    per_second = embedded / sum(rate.seconds for rate in rates)
    return [
        remaining,
        f"Earlier runs embedded {per_second:.3g} chips a second: {embedded:,} chips of {len(rates):,} tiles,"
        f" with {rates[0].model} on {rates[0].device}.",
        f"At that rate it takes {human_time(chips / per_second)}.",
    ]


def human_size(count: int) -> str:
    """Format bytes in the largest decimal unit that gives a number of at least 1."""
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def human_time(seconds: float) -> str:
    """Format a duration in hours, or in minutes if it is under an hour."""
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{max(seconds / 60, 0.1):.1f} minutes"
