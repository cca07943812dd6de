"""Lists and plans tiles ahead of their turn, many at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from clay_assets.embedding.fold import fold_pieces
from clay_assets.embedding.plan import TilePlan, plan_tile
from clay_assets.pipeline.job import TileJob, TileOutcome
from clay_assets.results.pieces import find_pieces, remove_pieces
from clay_assets.results.target import Target
from clay_assets.storage import StoredObject, again_if_replaced
from clay_assets.tiles.inventory import list_chips, read_inventory, require_tiles, write_inventory

LOOKUPS = 16
"""Tiles listed and planned at a time; each takes a few requests of some 50 ms, most of it waiting."""

TILES_AHEAD = 64
"""Maximum number of tiles planned, or being planned, before their turn: some 500 chips each, 300 bytes a
chip."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class PlannedTile:
    """A tile before its turn: its outcome so far, and the plan of its embedding."""

    outcome: TileOutcome
    plan: TilePlan | None = None


class Planner:
    """Lists and plans the tiles of a job. Use as a context manager."""

    def __init__(self, job: TileJob, target: Target | None) -> None:
        self._job = job
        self._target = target if "embed" in job.steps else None
        # One listing for all tiles: only killed runs leave pieces, so usually there are none.
        self._pieces = find_pieces(job.stores.work) if "embed" in job.steps else {}
        self._has_tiles = False
        self._pool = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="plan")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def planned(self, tiles: Iterable[str]) -> Iterator[PlannedTile]:
        """Yield the tiles in their order, while the next ones are planned."""
        return _in_order(self._pool, self._plan, tiles, ahead=2 * LOOKUPS)

    def _plan(self, tile: str) -> PlannedTile:
        job = self._job
        outcome = TileOutcome(tile)
        try:
            chips: Sequence[StoredObject] = ()
            if "inventory" in job.steps:
                inventory = list_chips(job.stores.chips, tile)
                chips = inventory.chips
                if not chips:
                    self._require_other_tiles()
                write_inventory(job.stores.work, tile, chips)
                outcome = replace(outcome, inventory=inventory)
            elif "embed" in job.steps:
                chips = read_inventory(job.stores.work, tile)
            if self._target is None:
                return PlannedTile(outcome)
            plan = self._plan_embedding(tile, chips, self._target)
            return PlannedTile(replace(outcome, reused=plan.is_current), plan)
        except Exception as error:  # becomes the outcome of this tile; the others continue
            return PlannedTile(replace(outcome, error=error))

    def _plan_embedding(self, tile: str, chips: Sequence[StoredObject], target: Target) -> TilePlan:
        job, work = self._job, self._job.stores.work
        pieces = self._pieces.get(tile, ())
        if pieces and job.force:
            remove_pieces(work, tile, pieces)
        elif pieces:
            fold_pieces(work, tile, chips, target, pieces)
        flags = {"force": job.force, "retry_skipped": job.retry_skipped}
        return again_if_replaced(partial(plan_tile, work, tile, chips, target, **flags))

    def _require_other_tiles(self) -> None:
        """Distinguish empty tiles from a wrong address: one tile with a folder is enough."""
        if not self._has_tiles:
            require_tiles(self._job.stores.chips)
            self._has_tiles = True


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Map like `pool.map`, but start at most `ahead` items before their results are taken."""
    started: deque[Future[R]] = deque()
    for item in items:
        started.append(pool.submit(work, item))
        if len(started) >= ahead:
            yield started.popleft().result()
    while started:
        yield started.popleft().result()
