"""Lists and plans tiles ahead of their turn, many at a time."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import NamedTuple

from clay_assets.embedding.plan import TilePlan, fold_pieces, plan_tile
from clay_assets.pipeline.job import TileJob, TileOutcome
from clay_assets.results import Target
from clay_assets.results.pieces import find_pieces, remove_pieces
from clay_assets.storage import StoredObject, again_if_replaced
from clay_assets.tiles.inventory import list_chips, read_inventory, require_tiles, write_inventory

# Tiles listed and planned at a time; each takes a few requests of some 50 ms, most of it waiting.
LOOKUPS = 16

# Most tiles planned, or being planned, before their turn: some 500 chips each, 300 bytes a chip.
TILES_AHEAD = 64


class PlannedTile(NamedTuple):
    """A tile before its turn."""

    outcome: TileOutcome  # so far
    plan: TilePlan | None = None  # of its embedding


class Planner:
    """Lists and plans the tiles of a job."""

    def __init__(self, job: TileJob, target: Target | None) -> None:
        self._job = job
        self._target = target if "embed" in job.steps else None
        # One listing for all tiles: only killed runs leave pieces, so usually there are none.
        self._pieces = find_pieces(job.stores.work) if "embed" in job.steps else {}
        self._has_tiles = False

    def planned(self, tiles: Iterable[str], pool: Executor) -> Iterator[PlannedTile]:
        """Yield the tiles in their order, while a pool of `LOOKUPS` threads plans the next ones."""
        started: deque[Future[PlannedTile]] = deque()
        for tile in tiles:
            started.append(pool.submit(self._plan, tile))
            if len(started) >= 2 * LOOKUPS:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()

    def _plan(self, tile: str) -> PlannedTile:
        job, stores, target = self._job, self._job.stores, self._target
        outcome = TileOutcome(tile)
        try:
            chips: Sequence[StoredObject] = ()
            if "inventory" in job.steps:
                inventory = list_chips(stores.chips, tile)
                chips = inventory.chips
                if not chips and not self._has_tiles:  # is the tile empty, or the address wrong?
                    require_tiles(stores.chips)
                    self._has_tiles = True
                write_inventory(stores.work, tile, chips)
                outcome = replace(outcome, inventory=inventory)
            elif "embed" in job.steps:
                chips = read_inventory(stores.work, tile)
            if target is None:
                return PlannedTile(outcome)
            pieces = self._pieces.get(tile, ())
            if pieces and job.force:
                remove_pieces(stores.work, tile, pieces)
            elif pieces:
                fold_pieces(stores.work, tile, chips, target, pieces)
            flags = {"force": job.force, "retry_skipped": job.retry_skipped}
            plan = again_if_replaced(lambda: plan_tile(stores.work, tile, chips, target, **flags))
            return PlannedTile(replace(outcome, reused=plan.is_current), plan)
        except Exception as error:  # becomes the outcome of this tile; the others continue
            return PlannedTile(replace(outcome, error=error))
