"""What the states of many tiles add up to: a table, what is left to embed, and how long it will take.

Text for a person. What a tile's state is: `states`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from clay_assets.state import STATES, Rate, TileState


def state_table(states: Sequence[TileState]) -> list[str]:
    """Tiles, chips and bytes by state, a line each, with what the state means."""
    row = "{:<12} {:>7} {:>11} {:>10} {:>11}  {}".format
    lines = [row("state", "tiles", "chips", "size", "to embed", "")]
    meanings: Mapping[str, str] = {str(state): meaning for state, meaning in STATES.items()} | {"all": ""}
    for state, meaning in meanings.items():
        of_state = [look for look in states if state in (look.state, "all")]
        chips, todo = sum(look.chips for look in of_state), sum(look.todo for look in of_state)
        size = human_size(sum(look.bytes for look in of_state))
        if of_state:
            lines.append(row(state, f"{len(of_state):,}", f"{chips:,}", size, f"{todo:,}", meaning))
    return [line.rstrip() for line in lines]


def outlook(states: Sequence[TileState]) -> list[str]:
    """What is left to embed, and how long it will take at the rate of earlier runs."""
    chips = sum(look.todo for look in states)
    if not chips:
        return ["Nothing is left to embed."]
    left = f"{chips:,} chips ({human_size(sum(look.todo_bytes for look in states))}) are left to embed."
    rates = usual_rates(look.rate for look in states if look.rate is not None)
    if not rates:
        return [left, "No earlier run of these tiles says how fast: embed one, and ask again."]
    embedded = sum(rate.chips for rate in rates)
    per_second = embedded / sum(
        rate.seconds for rate in rates
    )  # one tile's own rate depends on its neighbours
    return [
        left,
        f"Earlier runs embedded {per_second:.3g} chips a second: {embedded:,} chips of {len(rates):,} tiles,"
        f" with {rates[0].model} on {rates[0].device}.",
        f"At that rate it takes {human_time(chips / per_second)}.",
    ]


def usual_rates(rates: Iterable[Rate]) -> list[Rate]:
    """Those of the model and device that embedded the most chips: others say little of the next run."""
    groups: dict[tuple[str, str], list[Rate]] = defaultdict(list)
    for rate in rates:
        groups[rate.model, rate.device].append(rate)
    return max(groups.values(), key=lambda group: sum(rate.chips for rate in group), default=[])


def human_size(count: int) -> str:
    """Bytes in the largest decimal unit that leaves a number of 1 or more."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def human_time(seconds: float) -> str:
    """A duration in hours, or in minutes where it is short."""
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{max(seconds / 60, 0.1):.1f} minutes"
