"""Turns tile states into run requests. Adjacent tiles share a run; queued and running tiles are left out.

Not here: the states (`state`), or when to ask for them (`automation`).
https://docs.dagster.io/guides/build/partitions-and-backfills
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import dagster as dg

from clay_assets.state import State, TileState

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PARTITION = "dagster/partition"
"""Tags by which Dagster knows the partitions of a run."""

UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)

TO_REQUEST: frozenset[State] = frozenset({"new", "changed", "unpublished"})
"""States of tiles that a run is requested for. Stale tiles are left to a person: after a change of the
checkpoint or the level that may be the whole archive, and one backfill of all tiles does it."""

MAX_TILES_NAMED = 100
"""In a run's tag."""


@dataclass(frozen=True)
class TileRun:
    """A run to request.

    Attributes:
        tiles: Neighbours in the manifest, at least one.
    """

    tiles: Sequence[TileState]

    def request(self, run_key_prefix: str) -> dg.RunRequest:
        """As Dagster wants it.

        Args:
            run_key_prefix: Lets an equal run be requested again under another prefix; "" if it must not.
        """
        first, last = self.tiles[0].tile, self.tiles[-1].tile
        names = [look.tile for look in self.tiles]
        more = f" and {len(names) - MAX_TILES_NAMED} more" if len(names) > MAX_TILES_NAMED else ""
        counts = Counter(look.state for look in self.tiles)
        tags = {
            "clay/tiles": ", ".join(names[:MAX_TILES_NAMED]) + more,
            "clay/why": ", ".join(f"{count} {state}" for state, count in counts.items()),
        }
        one = first == last
        words = (run_key_prefix, first if one else f"{first}...{last}", self._digest())
        return dg.RunRequest(
            run_key=" ".join(word for word in words if word),
            partition_key=first if one else None,
            tags=tags if one else {**tags, RANGE_START: first, RANGE_END: last},
        )

    def _digest(self) -> str:
        """One word for what is to be made of what: other chips, or other results to start from, change it."""
        lines = [f"{look.tile} {look.listed} {look.embedded}\n" for look in self.tiles]
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def plan_runs(
    states: Sequence[TileState], under_way: Collection[str], tiles_per_run: int
) -> Iterator[TileRun]:
    """Runs for tiles with something to do and for no others: no gap between two tiles is bridged.

    A run of one tile costs a process and a loaded model, some ten seconds. Bridging would save those where
    every other tile has new chips, and would give the tiles between materializations they did not need.

    Args:
        states: Of the manifest's tiles, in its order.
        under_way: Tiles of queued or running runs; they are left out.
        tiles_per_run: Tiles in a run at most; 0: no limit.
    """
    groups = groupby(states, lambda look: look.state in TO_REQUEST and look.tile not in under_way)
    for wanted, group in groups:
        tiles = list(group)
        size = tiles_per_run or len(tiles)
        if wanted:
            yield from (TileRun(tiles[start : start + size]) for start in range(0, len(tiles), size))


def tiles_under_way(
    instance: dg.DagsterInstance, job: str, assets: Collection[dg.AssetKey], tiles: Sequence[str]
) -> set[str]:
    """Tiles of queued and running runs of our assets.

    A run that died unnoticed counts until it is marked as failed: `run_monitoring` in `deploy/` does that.

    Args:
        instance: Knows the runs.
        job: Name of our job, whose runs may not name their assets.
        assets: Keys of our assets.
        tiles: The manifest.
    """
    places = {tile: index for index, tile in enumerate(tiles)}
    found: set[str] = set()
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(UNDER_WAY))):
        if run.job_name != job and not set(assets) & set(run.asset_selection or ()):
            continue
        first, last = (run.tags.get(tag, run.tags.get(PARTITION, "")) for tag in (RANGE_START, RANGE_END))
        if first in places and last in places:
            found.update(tiles[places[first] : places[last] + 1])
    return found
