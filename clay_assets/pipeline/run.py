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
from clay_assets.pipeline.publish import publish_and_check
from clay_assets.publishing.versions import published_files, require_one_model
from clay_assets.storage import StorageError, TransferFailed
from clay_assets.tiles.inventory import inventory_key, list_chips

PUBLISHERS = 2
"""Tiles published at a time while the next one is embedded; a third waits, so that memory stays bounded."""


def process_tiles(
    tiles: Sequence[str], job: TileJob, record: Callable[[TileOutcome], None], progress: Progress
) -> str:
    """Take each tile through the steps of a job.

    A tile that fails does not stop the others. All calls of `record` come from the calling thread; a tile is
    recorded as soon as it is done, while the next one is embedded.

    Args:
        tiles: MGRS codes, in the order in which they are done.
        job: The steps and their settings.
        record: Called once for each tile, as soon as it is done.
        progress: Counts the chips.

    Returns:
        One line about the encoders, for a log.

    Raises:
        RunStopped: If every further tile would fail with the same error (wrong credentials, no such bucket, a
            damaged checkpoint), or `record` raised an error.
        StorageError, SettingsError: If the checkpoint cannot be fetched, or a setting is invalid.
        VersionMixed: If the output holds files of this version of another checkpoint or level.
        UntrainedWeights: If the checkpoint's weights were never trained, and the settings do not allow that.
    """
    with ExitStack() as stack:
        run = _Run(tiles, job, record, progress, stack)
        for planned in run.planner.planned(tiles):
            run.add(planned)
            while run.is_full or run.next_failed:
                run.do_next()
        run.finish()
    return run.summary


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
        self._target = job.target()
        if "embed" in job.steps:
            publish_facts(job.stores.work, job.encoder.local_checkpoint().facts)
        if "publish" in job.steps and self._target is not None:  # check it before hours of embedding
            require_one_model(job.stores.output, job.version, self._target.preferred, set(tiles))
        self._waiting: deque[PlannedTile] = deque()
        self._publishing: deque[Future[TileOutcome]] = deque()
        self._no_network: Exception | None = None
        self.planner = stack.enter_context(Planner(job, self._target))
        self._publishers = ThreadPoolExecutor(PUBLISHERS, thread_name_prefix="publish")
        stack.callback(self._close_publishers)
        self._embedding = (
            stack.enter_context(EmbeddingRun(job.stores.chips, job.encoder, progress))
            if "embed" in job.steps
            else None
        )

    @property
    def summary(self) -> str:
        return self._embedding.describe() if self._embedding else "nothing to embed"

    @property
    def is_full(self) -> bool:
        """Whether to do a tile before more are queued."""
        if self._no_network is not None:
            return bool(self._waiting)  # finish the tiles that need no network; then the run ends
        chips_ahead = self._embedding is not None and self._embedding.is_full
        return len(self._waiting) > 1 and (chips_ahead or len(self._waiting) >= TILES_AHEAD - 2 * LOOKUPS)

    @property
    def next_failed(self) -> bool:
        """Whether the next tile failed before its turn: its error may stop the run."""
        return bool(self._waiting) and self._waiting[0].outcome.error is not None

    def add(self, planned: PlannedTile) -> None:
        """Queue a tile, and its chips in the stream."""
        if planned.plan is not None and self._embedding is not None:
            try:
                self._embedding.add(planned.plan)
            except Exception as error:
                self._no_network = error
                planned = PlannedTile(replace(planned.outcome, error=error))
        self._waiting.append(planned)

    def finish(self) -> None:
        """Do all queued tiles."""
        if self._embedding is not None:
            self._embedding.finish()
        while self._waiting:
            self.do_next()
        while self._publishing:
            self._finish_oldest()

    def do_next(self) -> None:
        """Embed the next tile, and start to publish it."""
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
        self._publishing.append(self._publishers.submit(publish_and_check, self._job, self._target, outcome))
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
