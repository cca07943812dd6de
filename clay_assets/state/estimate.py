"""Summarizes the states of many tiles as text: a table, the remaining chips, and how long they will take."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from clay_assets.state import STATES, Rate, TileState


def state_table(states: Sequence[TileState]) -> list[str]:
    """Return one line per state: tiles, chips, bytes, and the meaning of the state."""
    row = "{:<12} {:>7} {:>11} {:>10} {:>11}  {}".format
    lines = [row("state", "tiles", "chips", "size", "to embed", "")]
    meanings: Mapping[str, str] = {str(state): meaning for state, meaning in STATES.items()} | {"all": ""}
    for state, meaning in meanings.items():
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
    rates = usual_rates(tile.rate for tile in states if tile.rate is not None)
    if not rates:
        return [remaining, "The rate is unknown until one of these tiles has been embedded."]
    embedded = sum(rate.chips for rate in rates)
    # The mean over all tiles: a single tile's rate depends on what else its run embedded at the time.
    per_second = embedded / sum(rate.seconds for rate in rates)
    return [
        remaining,
        f"Earlier runs embedded {per_second:.3g} chips a second: {embedded:,} chips of {len(rates):,} tiles,"
        f" with {rates[0].model} on {rates[0].device}.",
        f"At that rate it takes {human_time(chips / per_second)}.",
    ]


def usual_rates(rates: Iterable[Rate]) -> list[Rate]:
    """Return the rates of the model and device with the most chips: the next run probably uses these."""
    groups: dict[tuple[str, str], list[Rate]] = defaultdict(list)
    for rate in rates:
        groups[rate.model, rate.device].append(rate)
    return max(groups.values(), key=lambda group: sum(rate.chips for rate in group), default=[])


def human_size(count: int) -> str:
    """Format bytes in the largest decimal unit that gives a number of at least 1."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def human_time(seconds: float) -> str:
    """Format a duration in hours, or in minutes if it is under an hour."""
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{max(seconds / 60, 0.1):.1f} minutes"
