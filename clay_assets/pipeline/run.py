"""`process_tiles`: the order of the steps, and the effect of a failing tile on the others."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from clay_assets.embedding.checkpoint_cache import publish_facts
from clay_assets.embedding.progress import Progress
from clay_assets.embedding.run import EmbeddingRun
from clay_assets.embedding.tile import embed_planned
from clay_assets.pipeline.job import RunStopped, TileJob, TileOutcome
from clay_assets.pipeline.planner import LOOKUPS, TILES_AHEAD, PlannedTile, Planner
from clay_assets.publishing.publish import publish_tile
from clay_assets.publishing.versions import published_files, require_one_model
from clay_assets.quality.report import Part, Report, check_file, check_inventory, check_results
from clay_assets.results import Target
from clay_assets.storage import StorageError, TransferFailed, again_if_replaced
from clay_assets.tiles.inventory import InventoryMissing, inventory_key, list_chips, read_inventory

# Tiles published at a time while the next one is embedded; a third waits, so that memory stays bounded.
PUBLISHERS = 2

Record = Callable[[TileOutcome], None]


def process_tiles(tiles: Sequence[str], job: TileJob, record: Record, progress: Progress) -> str:
    """Take each tile through the steps of a job, in the order given; return one line about the encoders.

    A tile that fails does not stop the others. `record` is called once for each tile as soon as it is done,
    while the next one is embedded, and always from the calling thread.

    Raises:
        RunStopped: If every further tile would fail with the same error (wrong credentials, no such bucket, a
            damaged checkpoint), or `record` raised an error.
        StorageError, SettingsError: If the checkpoint cannot be fetched, or a setting is invalid.
        VersionMixed: If the output holds files of this version of another checkpoint or level.
        UntrainedWeights: If the checkpoint's weights were never trained, and the settings do not allow that.
    """
    with ExitStack() as stack:
        run = _Run(tiles, job, record, progress, stack)
        run.process()
    return run.embedding.describe() if "embed" in job.steps else "nothing to embed"


class _Run:
    """The state of one call of `process_tiles`."""

    def __init__(
        self, tiles: Sequence[str], job: TileJob, record: Record, progress: Progress, stack: ExitStack
    ) -> None:
        self._job = job
        self._record = record
        self._target: Target | None = None  # None if no step needs it
        if "embed" in job.steps:
            self._target = job.encoder.target()
            _, facts = job.encoder.local_checkpoint()
            publish_facts(job.stores.work, facts)
        elif "publish" in job.steps:  # only a job that embeds downloads the checkpoint
            self._target = job.encoder.known_target(job.stores.work) or job.encoder.target()
        if "publish" in job.steps and self._target is not None:  # check it before hours of embedding
            require_one_model(job.stores.output, job.version, self._target.preferred, set(tiles))
        self._waiting: deque[PlannedTile] = deque()
        self._publishing: deque[Future[TileOutcome]] = deque()
        self._no_network: Exception | None = None
        # First on the stack, so last to end: a request that stalls must not delay what is recorded.
        lookups = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="plan")
        stack.callback(lookups.shutdown, cancel_futures=True)
        self._planned = Planner(job, self._target).planned(tiles, lookups)
        self._publishers = ThreadPoolExecutor(PUBLISHERS, thread_name_prefix="publish")
        stack.callback(self._close_publishers)
        self.embedding = stack.enter_context(EmbeddingRun(job.stores.chips, job.encoder, progress))

    def process(self) -> None:
        """Do all tiles."""
        for planned in self._planned:
            self._add(planned)
            while self._is_next_due():
                self._do_next()
        self.embedding.finish()
        while self._waiting:
            self._do_next()
        while self._publishing:
            self._finish_oldest()

    def _add(self, planned: PlannedTile) -> None:
        """Queue a tile, and its chips in the stream."""
        if planned.plan is not None:
            try:
                self.embedding.add(planned.plan)
            except Exception as error:
                self._no_network = error
                planned = PlannedTile(replace(planned.outcome, error=error))
        self._waiting.append(planned)

    def _is_next_due(self) -> bool:
        """Return whether to do a tile before more are queued."""
        if not self._waiting:
            return False
        if self._waiting[0].outcome.error is not None:  # it may stop the run
            return True
        if self._no_network is not None:  # finish the tiles that need no network; then the run ends
            return True
        full = self.embedding.is_full or len(self._waiting) >= TILES_AHEAD - 2 * LOOKUPS
        return full and len(self._waiting) > 1

    def _do_next(self) -> None:
        """Embed the next tile, and start to publish it."""
        outcome, plan = self._waiting.popleft()
        job, work = self._job, self._job.stores.work
        if outcome.error is None and plan is not None and plan.chips:
            try:
                header = embed_planned(plan, self.embedding, work, self._record_published, job.pieces)
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
        self._publishing.append(self._publishers.submit(_publish_and_check, job, self._target, outcome))
        self._record_published()

    def _close_publishers(self) -> None:
        """End the run, also after an error or an interrupt: publish and record the embedded tiles."""
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
        except Exception as error:  # possibly of another tile than the current one
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
        """Distinguish a failing object from a failing store after a failed transfer; one request each."""
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


def _publish_and_check(job: TileJob, target: Target | None, outcome: TileOutcome) -> TileOutcome:
    """Do the steps after the embedding of a tile; the returned outcome has the error, if any."""
    stores, tile = job.stores, outcome.tile
    try:
        chips = outcome.inventory.chips if outcome.inventory else read_inventory(stores.work, tile)
        if not chips:
            outcome = replace(outcome, empty=True)
        elif "publish" in job.steps and target is not None:
            published = again_if_replaced(
                lambda: publish_tile(stores.work, stores.output, tile, version=job.version, target=target)
            )
            outcome = replace(outcome, published=published)
            if stores.stac is not None:
                from clay_assets.stac.catalog import publish_item  # most scripts write no catalog

                name, energy = published.url.rpartition("/")[2], published.energy
                publish_item(stores.output, stores.stac, name, picture=published.picture, energy=energy)
        if job.check:
            outcome = replace(outcome, reports=again_if_replaced(lambda: examine(job, tile, target)))
    except Exception as error:  # becomes the outcome of this tile; the others continue
        return replace(outcome, error=error)
    return outcome


def examine(job: TileJob, tile: str, target: Target | None, *, again: bool = False) -> dict[Part, Report]:
    """Check a tile's inventory, results and published file, as far as the job has steps that make them.

    An empty tile has neither results nor a file to check. With a `target` of None no results count as
    current, because no run has used the checkpoint yet. With `again`, everything is read, even if its present
    state was checked before.
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
