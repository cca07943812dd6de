"""The main job: each tile is listed, embedded and published before the next one is done.

    list and plan, up to 64 tiles ahead ──► one chip stream for all tiles ──► results, tile by tile
                                                                              └──► publish, beside it

Belongs here: the order of the steps, and what a failing tile means for the others. Does not belong here: the
steps themselves (`tiles.inventory`, `embedding`, `publishing`, `quality`), or recording in Dagster
(`dagster`).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeVar

from clay_assets.embedding.checkpoint_cache import publish_facts
from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.embedding.fold import fold_pieces
from clay_assets.embedding.plan import TilePlan, plan_tile
from clay_assets.embedding.progress import Progress
from clay_assets.embedding.run import EmbeddingRun
from clay_assets.embedding.tile import embed_planned
from clay_assets.publishing.publish import Published, publish_tile
from clay_assets.publishing.versions import published_files, require_one_model
from clay_assets.quality.examine import check_file, check_inventory, check_results
from clay_assets.quality.report import Part, Report
from clay_assets.results import ResultsHeader
from clay_assets.results.pieces import PieceLimits, find_pieces, remove_pieces
from clay_assets.results.target import Target
from clay_assets.state.states import TileStores
from clay_assets.storage import (
    StorageError,
    Store,
    StoredObject,
    TransferFailed,
    again_if_replaced,
)
from clay_assets.tiles.inventory import (
    Inventory,
    InventoryMissing,
    inventory_key,
    list_chips,
    read_inventory,
    require_tiles,
    write_inventory,
)

Step = Literal["inventory", "embed", "publish"]
STEPS: tuple[Step, ...] = ("inventory", "embed", "publish")

LOOKUPS = 16
"""Tiles listed and planned at a time; each takes a few requests of some 50 ms, most of it waiting."""

TILES_AHEAD = 64
"""Tiles planned, or begun to be, before their turn, at most: some 500 chips each, 300 bytes a chip."""

PUBLISHERS = 2
"""Tiles published at a time while the next one is embedded; a third waits, so that memory stays bounded."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class TileOutcome:
    """What became of a tile in a run: the steps that it completed, and the error that ended it.

    Attributes:
        tile: MGRS code.
        inventory: What was listed; None where the step was not asked for or failed.
        results: Header of its results; None where the step was not asked for, failed, or the tile is empty.
        reused: Whether the results were current before the run.
        published: The published file; None where the step was not asked for, failed, or the tile is empty.
        reports: What the checks found, by what they read.
        empty: Whether the tile has no chips.
        error: What went wrong; None for a tile that completed all steps.
    """

    tile: str
    inventory: Inventory | None = None
    results: ResultsHeader | None = None
    reused: bool = False
    published: Published | None = None
    reports: Mapping[Part, Report] = field(default_factory=dict)
    empty: bool = False
    error: Exception | None = None


class RunStopped(Exception):
    """An error that every further tile of the run would meet, too, or that kept a tile from being recorded.

    Attributes:
        outcome: Of the first tile that met it.
    """

    def __init__(self, outcome: TileOutcome) -> None:
        super().__init__(f"{type(outcome.error).__name__}: {outcome.error}")
        self.outcome = outcome


@dataclass(frozen=True)
class TileJob:
    """What to do with each tile.

    Attributes:
        stores: Chips, work and published files.
        encoder: The encoder's settings.
        version: Of the published files.
        steps: Which steps to do; what an earlier step makes is read from the work store where it is left out.
        force: Embed every chip again, whatever exists.
        retry_skipped: Read chips again that earlier runs skipped.
        check: Whether to read back and judge what was made.
        pieces: When the finished chips of a tile are stored before its end.
    """

    stores: TileStores
    encoder: EncoderSettings
    version: int = 1
    steps: Sequence[Step] = STEPS
    force: bool = False
    retry_skipped: bool = False
    check: bool = True
    pieces: PieceLimits = field(default_factory=PieceLimits)


def process_tiles(
    tiles: Sequence[str], job: TileJob, record: Callable[[TileOutcome], None], progress: Progress
) -> str:
    """Take each tile through the steps of a job.

    A tile that fails does not hold back another one. All calls of `record` come from the calling thread; a
    tile is recorded as soon as it is done, while the next one is embedded.

    Args:
        tiles: MGRS codes, in the order in which they are to be done.
        job: What to do.
        record: Called once for each tile that was done, as soon as it is.
        progress: Counts the chips.

    Returns:
        One line about what the encoders did.

    Raises:
        RunStopped: If every further tile would fail the same way (wrong credentials, no such bucket, a
            damaged checkpoint), or `record` raised an error.
        StorageError, SettingsError: If the checkpoint cannot be fetched, or a setting is invalid.
        VersionMixed: If the output holds files of this version of another checkpoint or level.
        UntrainedWeights: If the checkpoint's weights were never trained, and the settings do not allow that.
    """
    with ExitStack() as stack:
        run = _Run(tiles, job, record, progress, stack)
        for planned in run.planned(tiles):
            run.add(planned)
            while run.is_full or run.next_failed:
                run.do_next()
        run.finish()
    return run.summary


@dataclass(frozen=True)
class _Planned:
    """A tile before its turn: its outcome so far, and what to embed of it."""

    outcome: TileOutcome
    plan: TilePlan | None = None


class _Run:
    """The state of one call of `process_tiles`."""

    def __init__(
        self,
        tiles: Sequence[str],
        job: TileJob,
        record: Callable[[TileOutcome], None],
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        self._job = job
        self._record = record
        self._target = self._find_target()
        if "publish" in job.steps and self._target is not None:  # before hours are spent on vectors to refuse
            require_one_model(job.stores.output, job.version, self._target.preferred, set(tiles))
        # One listing for all tiles: left by runs that were killed, mostly none.
        self._pieces = find_pieces(job.stores.work) if "embed" in job.steps else {}
        self._waiting: deque[_Planned] = deque()
        self._publishing: deque[Future[TileOutcome]] = deque()
        self._has_tiles = False
        self._no_network: Exception | None = None
        self._lookups = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="plan")
        stack.callback(self._lookups.shutdown, cancel_futures=True)
        self._publishers = ThreadPoolExecutor(PUBLISHERS, thread_name_prefix="publish")
        stack.callback(self._close_publishers)
        self._embedding = (
            stack.enter_context(EmbeddingRun(job.stores.chips, job.encoder, progress))
            if "embed" in job.steps
            else None
        )

    def _find_target(self) -> Target | None:
        """What the settings ask for; only a run that embeds downloads the checkpoint to know it."""
        job = self._job
        if "embed" in job.steps:
            target = job.encoder.target()
            publish_facts(job.stores.work, job.encoder.local_checkpoint().facts)
            return target
        if "publish" in job.steps:
            return job.encoder.known_target(job.stores.work) or job.encoder.target()
        return None

    @property
    def summary(self) -> str:
        return self._embedding.in_words() if self._embedding else "nothing was to embed"

    @property
    def is_full(self) -> bool:
        """Whether to do a tile before more are queued."""
        if self._no_network is not None:
            return bool(self._waiting)  # the tiles before the first that needs it are done, then the run ends
        chips_ahead = self._embedding is not None and self._embedding.is_full
        return len(self._waiting) > 1 and (chips_ahead or len(self._waiting) >= TILES_AHEAD - 2 * LOOKUPS)

    @property
    def next_failed(self) -> bool:
        """Whether the next tile failed before its turn: perhaps by an error that stops the run."""
        return bool(self._waiting) and self._waiting[0].outcome.error is not None

    def planned(self, tiles: Iterable[str]) -> Iterator[_Planned]:
        """Tiles listed and planned, many at a time, in their order."""
        return _in_order(self._lookups, self._plan, tiles, ahead=2 * LOOKUPS)

    def _plan(self, tile: str) -> _Planned:
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
            if self._target is None or "embed" not in job.steps:
                return _Planned(outcome)
            pieces = self._pieces.get(tile, ())
            if pieces and job.force:
                remove_pieces(job.stores.work, tile, pieces)
            elif pieces:
                fold_pieces(job.stores.work, tile, chips, self._target, pieces)
            plan = again_if_replaced(
                partial(
                    plan_tile,
                    job.stores.work,
                    tile,
                    chips,
                    self._target,
                    force=job.force,
                    retry_skipped=job.retry_skipped,
                )
            )
            return _Planned(replace(outcome, reused=plan.is_current), plan)
        except Exception as error:
            return _Planned(replace(outcome, error=error))

    def _require_other_tiles(self) -> None:
        """Tell an empty tile from a wrong address: one tile with a folder is enough."""
        if not self._has_tiles:
            require_tiles(self._job.stores.chips)
            self._has_tiles = True

    def add(self, planned: _Planned) -> None:
        """Queue a tile, and its chips in the stream."""
        if planned.plan is not None and self._embedding is not None:
            try:
                self._embedding.add(planned.plan)
            except Exception as error:
                self._no_network = error
                planned = _Planned(replace(planned.outcome, error=error))
        self._waiting.append(planned)

    def finish(self) -> None:
        """Do all tiles that are queued."""
        if self._embedding is not None:
            self._embedding.finish()
        while self._waiting:
            self.do_next()
        while self._publishing:
            self._finish_oldest()

    def do_next(self) -> None:
        """Embed the next tile, and begin to publish it."""
        planned = self._waiting.popleft()
        outcome, plan = planned.outcome, planned.plan
        if outcome.error is None and plan is not None and self._embedding is not None and plan.chips:
            try:
                job, work = self._job, self._job.stores.work
                header = embed_planned(plan, self._embedding, work, self._record_published, job.pieces)
                outcome = replace(outcome, results=header)
            except RunStopped:
                raise
            except Exception as error:
                outcome = replace(outcome, error=error)
        if outcome.error is not None:
            self._finish(outcome)
            return
        while len(self._publishing) >= PUBLISHERS:
            self._finish_oldest()
        self._publishing.append(self._publishers.submit(self._publish, outcome))
        self._record_published()

    def _publish(self, outcome: TileOutcome) -> TileOutcome:
        job, tile = self._job, outcome.tile
        try:
            if self._is_empty(outcome):
                outcome = replace(outcome, empty=True)
            elif "publish" in job.steps and self._target is not None:
                published = again_if_replaced(
                    partial(
                        publish_tile,
                        job.stores.work,
                        job.stores.output,
                        tile,
                        version=job.version,
                        target=self._target,
                    )
                )
                outcome = replace(outcome, published=published)
                if job.stores.stac is not None:
                    _catalogue(published, job.stores.output, job.stores.stac)
            if job.check:
                outcome = replace(
                    outcome, reports=again_if_replaced(partial(examine, job, tile, self._target))
                )
        except Exception as error:
            return replace(outcome, error=error)
        return outcome

    def _is_empty(self, outcome: TileOutcome) -> bool:
        if outcome.inventory is not None:
            return not outcome.inventory.chips
        return not read_inventory(self._job.stores.work, outcome.tile)

    def _close_publishers(self) -> None:
        """End of the run, also by an error or an interrupt: publish and record what is embedded."""
        self._publishers.shutdown()
        for future in self._publishing:
            self._record(future.result())

    def _record_published(self) -> None:
        while self._publishing and self._publishing[0].done():
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        outcome = self._publishing[0].result()  # an interrupt while waiting leaves it to `_close_publishers`
        self._publishing.popleft()
        self._finish(outcome)

    def _finish(self, outcome: TileOutcome) -> None:
        try:
            self._record(outcome)
        except Exception as error:  # may belong to another tile than the current one
            raise RunStopped(replace(outcome, error=error)) from error
        if outcome.error is not None and self._is_systemic(outcome):
            raise RunStopped(outcome) from outcome.error

    def _is_systemic(self, outcome: TileOutcome) -> bool:
        if outcome.error is self._no_network:
            return True
        if isinstance(outcome.error, TransferFailed):
            return self._is_store_lost(outcome.tile)
        return bool(getattr(outcome.error, "systemic", False))

    def _is_store_lost(self, tile: str) -> bool:
        """After a transfer failed: was it the object, or a store? One request to each tells."""
        stores, steps = self._job.stores, self._job.steps
        try:
            if "inventory" in steps or "embed" in steps:
                list_chips(stores.chips, tile)
            stores.work.exists(inventory_key(tile))
            if "publish" in steps:
                published_files(stores.output, self._job.version, tile)
        except StorageError:
            return True
        return False


def _catalogue(published: Published, output: Store, stac: Store) -> None:
    """Describe a published file as a STAC Item; imported here, because most scripts publish none."""
    from clay_assets.stac.catalog import publish_item

    name = published.url.rpartition("/")[2]
    publish_item(output, stac, name, picture=published.picture, energy=published.energy)


def examine(job: TileJob, tile: str, target: Target | None, *, again: bool = False) -> dict[Part, Report]:
    """What the checks find about a tile's inventory, its results and its published file.

    An empty tile has neither results nor a file to examine.

    Args:
        job: Says which of them the job makes: nothing else is examined.
        tile: MGRS code.
        target: Which results count as current; None: none, as no run has used the checkpoint yet.
        again: Read everything, also what was examined in its present state before.

    Raises:
        StorageError: If a store refuses.
    """
    stores = job.stores
    try:
        chips = read_inventory(stores.work, tile)
    except InventoryMissing as error:
        missing = Report(tile, missing=str(error))
        return {"inventory": missing, "results": missing, "file": missing}
    reports: dict[Part, Report] = {"inventory": check_inventory(tile, chips)}
    if chips and "embed" in job.steps:
        reports["results"] = check_results(stores.work, tile, chips, target, again=again)
    if chips and "publish" in job.steps:
        files = published_files(stores.output, job.version, tile).get(tile, [])
        reports["file"] = check_file(stores.work, stores.output, tile, files, again=again)
    return reports


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Like `pool.map`, but at most `ahead` items are begun before their results are taken."""
    started: deque[Future[R]] = deque()
    for item in items:
        started.append(pool.submit(work, item))
        if len(started) >= ahead:
            yield started.popleft().result()
    while started:
        yield started.popleft().result()
