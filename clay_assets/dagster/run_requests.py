"""Turns tile states into run requests. Adjacent tiles share a run; queued and running tiles are left out.

Not here: the states (`state`), or when to survey them (`automation`).
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
"""Dagster's tags for the partitions of a run."""

UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)

TO_REQUEST: frozenset[State] = frozenset({"new", "changed", "unpublished"})
"""States of tiles that a run is requested for. Stale tiles are not requested: after a change of the
checkpoint or the level they may be the whole archive, which needs a backfill of all tiles."""

MAX_TILES_NAMED = 100
"""Tiles named in a run's tag `clay/tiles`."""


@dataclass(frozen=True)
class TileRun:
    """A run to request.

    Attributes:
        tiles: Adjacent tiles of the manifest, at least one.
    """

    tiles: Sequence[TileState]

    def request(self, run_key_prefix: str) -> dg.RunRequest:
        """Build the request: of one partition, or of a range of partitions.

        Args:
            run_key_prefix: Dagster launches an equal request only once for each prefix.
        """
        first, last = self.tiles[0].tile, self.tiles[-1].tile
        names = [tile.tile for tile in self.tiles]
        more = f" and {len(names) - MAX_TILES_NAMED} more" if len(names) > MAX_TILES_NAMED else ""
        counts = Counter(tile.state for tile in self.tiles)
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
        """Hash the chips and the existing results that the run starts from."""
        lines = [f"{tile.tile} {tile.chips_digest} {tile.inputs}\n" for tile in self.tiles]
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def plan_runs(states: Sequence[TileState], in_runs: Collection[str], tiles_per_run: int) -> Iterator[TileRun]:
    """Group the tiles with work to do into runs of adjacent tiles, without any other tile.

    A run of one tile costs a process and a loaded model, some ten seconds. Runs that include the tiles
    between would save this if every other tile has new chips, but would record needless materializations of
    those tiles.

    Args:
        states: States of the manifest's tiles, in its order.
        in_runs: Tiles of queued or running runs; they are left out.
        tiles_per_run: Maximum number of tiles of a run; 0: no limit.
    """
    for due, group in groupby(states, lambda tile: tile.state in TO_REQUEST and tile.tile not in in_runs):
        tiles = list(group)
        size = tiles_per_run or len(tiles)
        if due:
            yield from (TileRun(tiles[start : start + size]) for start in range(0, len(tiles), size))


def tiles_in_runs(
    instance: dg.DagsterInstance, job: str, assets: Collection[dg.AssetKey], tiles: Sequence[str]
) -> set[str]:
    """Find the tiles of queued and running runs of our assets.

    A run whose process died counts until it is marked as failed: `run_monitoring` in `deploy/` does that.

    Args:
        instance: Holds the runs.
        job: Name of our job, whose runs may not name their assets.
        assets: Keys of our assets.
        tiles: The manifest.
    """
    indices = {tile: index for index, tile in enumerate(tiles)}
    found: set[str] = set()
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(UNFINISHED))):
        if run.job_name != job and not set(assets) & set(run.asset_selection or ()):
            continue
        first, last = (run.tags.get(tag, run.tags.get(PARTITION, "")) for tag in (RANGE_START, RANGE_END))
        if first in indices and last in indices:
            found.update(tiles[indices[first] : indices[last] + 1])
    return found
