"""Embed tiles: one stream for a whole run, one tile's outcomes at a time out of it and into the work store.

Belongs here: keeping what is finished however a tile ends. Does not belong here: what is to do of a tile
(`plan`), how chips become vectors (`stream`), the order of the steps (`pipeline`).
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

import pyarrow as pa

from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.embedding.plan import TilePlan
from clay_assets.embedding.progress import Progress
from clay_assets.embedding.stream import ChipStream
from clay_assets.parquet import DamagedFileError
from clay_assets.results import Making, ResultsHeader, ResultsWriter, TileResults, TileSummary
from clay_assets.results.counts import Tally, count_reasons
from clay_assets.results.fingerprint import Fingerprint, chips_digest
from clay_assets.results.outcomes import NoUsableChips
from clay_assets.storage import Store
from clay_model import Embedder, Level, embedding_shape

log = logging.getLogger(__name__)


class ResultsChanged(RuntimeError):
    """The results of a tile are no longer those that its plan was made for."""


class EmbeddingRun:
    """The stream that the tiles of one run share. Use as a context manager.

    The network is loaded when the first tile with something to embed is added.

    Attributes:
        ahead: Chips added that the consumer did not come to yet.
        progress: Counts the chips.
        making: How the stream makes vectors; None as long as there is nothing to embed.
    """

    def __init__(
        self, chips: Store, encoder: EncoderSettings, fingerprint: Fingerprint, progress: Progress
    ) -> None:
        """Describe the run; nothing starts yet.

        Args:
            chips: Store of chips.
            encoder: Gives the network, one copy a device.
            fingerprint: That the plans were made for.
            progress: Counts the chips.
        """
        self.ahead = 0
        self.progress = progress
        self.making: Making | None = None
        self._chips = chips
        self._encoder = encoder
        self._fingerprint = fingerprint
        self._stream: ChipStream | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def is_full(self) -> bool:
        """Whether more tiles ahead would not help the devices."""
        return self._stream is not None and self.ahead > self._stream.capacity

    def add(self, plan: TilePlan) -> None:
        """Queue what is to embed of a tile.

        Raises:
            CheckpointError: If the file is no checkpoint of Clay v0.
            StorageError: If the checkpoint cannot be fetched, or was replaced since the plans were made.
            SettingError: If a setting is invalid.
        """
        if not plan.todo:
            return
        if self._stream is None:
            self._stream = self._start()
        self._stream.add(plan.tile, plan.todo)
        self.ahead += len(plan.todo)
        self.progress.expect(len(plan.todo))

    def finish(self) -> None:
        """Say that no more tiles follow."""
        if self._stream is not None:
            self._stream.finish()

    def _start(self) -> ChipStream:
        embedders = self._encoder.embedders(self._fingerprint)
        level = self._encoder.chosen_level()
        stream = ChipStream(
            read=self._chips.read,
            embedders=embedders,
            level=level,
            batch_size=self._encoder.chips_per_batch(embedders),
        )
        self.making = _making(self._fingerprint, embedders, level)
        return self._stack.enter_context(stream)

    def embed(self, plan: TilePlan, work: Store, on_chip: Callable[[], None] = lambda: None) -> ResultsHeader:
        """Finish one tile and store its results.

        However the tile ends, by an error or by an interrupt, the finished chips are stored, so that the next
        run continues from there; unless earlier results that are still valid account for more of them.

        Args:
            plan: What is to embed of the tile; tiles come in the order in which they were added.
            work: Store of results.
            on_chip: Called after each chip.

        Returns:
            What the stored results say of themselves.

        Raises:
            NoUsableChips: If each chip was skipped; the skips are stored all the same.
            StorageError: If a chip could not be fetched, or the results not be stored.
            EncodingFailed: If the network could not embed a chip.
            ResultsChanged: If another run replaced the tile's results since the plan was made, or they are
                damaged where the plan did not look.
        """
        header = plan.header
        if header is None or not plan.is_current:
            header = self._embed(plan, work, on_chip)
        if not header.summary.embedded:
            raise NoUsableChips(f"tile {plan.tile}: {_skips_in_words(header.summary)}")
        return header

    def _embed(self, plan: TilePlan, work: Store, on_chip: Callable[[], None]) -> ResultsHeader:
        making = self.making if plan.todo else None
        if making is None:  # nothing to embed, only rows to drop
            assert plan.header is not None  # noqa: S101 - else every chip would be to embed
            making = plan.header.making
        self.ahead -= len(plan.todo)
        started = time.perf_counter()
        tally = Tally(dim=making.shape[-1])
        self.progress.begin(plan.tile)

        def header() -> ResultsHeader:
            return ResultsHeader(
                making,
                digest=chips_digest(tally.accounted),
                summary=tally.summary(seconds=time.perf_counter() - started),
                left=len(plan.chips) - len(tally.accounted),
            )

        with ResultsWriter(making.width) as writer:
            if plan.kept:
                with _reopened(plan, work) as results:
                    for table in _kept(results, plan):
                        writer.copy(table)
                        tally.count_kept(table)
            try:
                if plan.todo:
                    assert self._stream is not None  # noqa: S101 - started by `add`
                    with closing(self._stream.results(plan.tile)) as outcomes:
                        for outcome in outcomes:
                            writer.add(outcome)
                            tally.count(outcome)
                            self.progress.count(outcome)
                            on_chip()
            except BaseException:  # an interrupt too: what is finished stays finished
                if tally.read:
                    _store_partial(writer, work, plan, header)
                raise
            final = header()
            writer.store(work, plan.tile, final)
        return final

    def in_words(self) -> str:
        """What the run's encoders did, in one line."""
        if self.making is None or self._stream is None:
            return "no chip was to embed: no network was loaded"
        clock, making = self._stream.clock, self.making
        precision = making.fingerprint.precision
        if self._encoder.precision == "auto" and precision == "fp32":
            precision += " (auto: the device does not multiply bf16 natively)"
        return (
            f"{making.model} at {precision} on {making.device}: {clock.batches} batches,"
            f" the encoder waited {clock.waiting:.2f} s of {clock.encoding + clock.waiting:.2f} s"
        )


def _making(fingerprint: Fingerprint, embedders: Sequence[Embedder], level: Level) -> Making:
    first = embedders[0]
    return Making(
        fingerprint=fingerprint,
        shape=embedding_shape(level, first.dimensions.dim),
        model=f"clay-v0-{first.model_size}",
        untrained=first.untrained,
        device=", ".join(str(embedder.device) for embedder in embedders),
    )


def _reopened(plan: TilePlan, work: Store) -> TileResults:
    results = TileResults.open(work, plan.tile)
    if results is None or results.header != plan.header:
        if results is not None:
            results.close()
        raise ResultsChanged(
            f"another run stored results of tile {plan.tile} since this one started: run the tile again"
        )
    return results


def _kept(results: TileResults, plan: TilePlan) -> Iterator[pa.Table]:
    try:
        yield from results.take(plan.kept)
    except DamagedFileError as error:  # the plan counted on them: their chips are not in the stream
        raise ResultsChanged(
            f"the vectors in the results of tile {plan.tile} are damaged: embed it again with force"
        ) from error


def _store_partial(
    writer: ResultsWriter, work: Store, plan: TilePlan, header: Callable[[], ResultsHeader]
) -> None:
    tile = plan.tile
    try:
        partial = header()
        at_hand = _at_hand(work, plan, partial.making.fingerprint)
        if at_hand > partial.summary.chips:  # every chip was to be embedded again
            log.warning(
                "tile %s: the earlier results stay, as they are valid for %d of its chips, and the run that"
                " broke finished %d",
                tile,
                at_hand,
                partial.summary.chips,
            )
            return
        writer.store(work, tile, partial)
    except Exception as error:  # the error that ended the tile matters more
        log.warning("the finished chips of tile %s could not be kept: %s", tile, error)
    else:
        log.info("tile %s: %d finished chips are kept for the next run", tile, partial.summary.chips)


def _at_hand(work: Store, plan: TilePlan, fingerprint: Fingerprint) -> int:
    """Chips of the inventory that the results in the store account for as this run would."""
    results = TileResults.open(work, plan.tile)
    if results is None:
        return 0
    with results:
        if results.header.making.fingerprint != fingerprint:
            return 0
        try:
            found = set(results.chips())
        except DamagedFileError:
            return 0
    return sum((chip.url, chip.etag) in found for chip in plan.chips)


def _skips_in_words(summary: TileSummary) -> str:
    counts = count_reasons(summary.skipped)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return (
        f"none of its {summary.chips} chips can be used ({reasons});"
        f" the first: {summary.skipped[0]['detail']} ({summary.skipped[0]['source_url']})."
        " They are read again once they change"
    )
