"""Embed tiles: doing what is left of each, keeping what is finished whatever happens.

The work of the asset `chip_embeddings`, without Dagster: `embedding_run` starts the stream for a run's tiles,
`embed_tile` takes one tile's outcomes out of it and stores them. What is left to do is in `planning`.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pyarrow as pa

from clay_assets.dagster.encoder import ClayEncoder
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


@dataclass
class EmbeddingRun:
    """What the tiles of one run share.

    Attributes:
        stream: Embeds the chips that the plans left to do.
        progress: Tells of each.
        making: How the stream makes vectors; None where there is nothing to embed.
        precision_asked_for: As the setting has it, `auto` perhaps.
    """

    stream: ChipStream
    progress: Progress
    making: Making | None
    precision_asked_for: str

    def in_words(self) -> str:
        """What the run's encoders did, in one line."""
        if self.making is None:
            return "no chip is left to embed: no network was loaded"
        clock, making = self.stream.clock, self.making
        precision = making.fingerprint.precision
        if self.precision_asked_for == "auto" and precision == "fp32":
            precision += " (auto: the device does not multiply bf16 natively)"
        return (
            f"{making.model} at {precision} on {making.device}: {clock.batches} batches,"
            f" the encoder waited {clock.waiting:.2f} s of {clock.encoding + clock.waiting:.2f} s"
        )


@contextmanager
def embedding_run(
    plans: Mapping[str, TilePlan], chips: Store, encoder: ClayEncoder, fingerprint: Fingerprint
) -> Iterator[EmbeddingRun]:
    """Start embedding what the plans left to do; the network is loaded only if there is something.

    Args:
        plans: Of the run's tiles, in the order in which they will be taken.
        chips: Store of chips.
        encoder: Gives the network, one copy a device.
        fingerprint: That the plans were made for.

    Yields:
        The run, for `embed_tile`. Everything it started is stopped at the end, also in the middle.

    Raises:
        CheckpointError: If the file is no checkpoint of Clay v0.
        StorageError: If the checkpoint cannot be had, or was replaced since the plans were made.
        SettingError: If a setting means nothing.
    """
    todo = {tile: plan.todo for tile, plan in plans.items()}
    count = sum(len(part) for part in todo.values())
    embedders = encoder.embedders(fingerprint) if count else ()
    stream = ChipStream(
        todo,
        read=chips.read,
        embedders=embedders,
        level=encoder.chosen_level(),
        batch_size=encoder.chips_per_batch(embedders) if embedders else 1,
    )
    making = _making(fingerprint, embedders, encoder.chosen_level()) if embedders else None
    with stream, Progress(count) as progress:
        yield EmbeddingRun(stream, progress, making, encoder.precision)


def _making(fingerprint: Fingerprint, embedders: Sequence[Embedder], level: Level) -> Making:
    first = embedders[0]
    return Making(
        fingerprint=fingerprint,
        shape=embedding_shape(level, first.dimensions.dim),
        model=f"clay-v0-{first.model_size}",
        untrained=first.untrained,
        device=", ".join(str(embedder.device) for embedder in embedders),
    )


def embed_tile(plan: TilePlan, run: EmbeddingRun, work: Store) -> ResultsHeader:
    """Finish one tile and store its results.

    However the tile ends, by an error or by an interrupt, the chips that were done are stored, so that the
    next run goes on from there; unless earlier results that still hold account for more of them.

    Args:
        plan: What is left to do of the tile; one of those that the run was started with.
        run: Embeds it.
        work: Store of results.

    Returns:
        What the stored results say of themselves.

    Raises:
        NoUsableChips: If the tile has no chips, or each was skipped; the skips are stored all the same.
        StorageError: If a chip could not be fetched, or the results not be stored.
        EncodingFailed: If the network could not embed a chip.
        LookupError: If another run replaced the tile's results since the plan was made, or they are damaged
            where the plan did not look.
        Exception: Whatever kept the tile from being planned.
    """
    if plan.problem is not None:
        raise plan.problem
    if not plan.chips:
        raise NoUsableChips(
            f"tile {plan.tile} has no chips: its inventory is empty. Check CLAY_CHIPS_URI and the code;"
            " a tile that is meant to be empty can be taken out of the manifest"
        )
    header = plan.header
    if header is None or not plan.is_current:
        header = _embed(plan, run, work)
    if not header.summary.embedded:
        raise NoUsableChips(f"tile {plan.tile}: {_skips_in_words(header.summary)}")
    return header


def _embed(plan: TilePlan, run: EmbeddingRun, work: Store) -> ResultsHeader:
    making = run.making
    if making is None:  # nothing to embed in the whole run, only rows to drop
        assert plan.header is not None  # noqa: S101 - else every chip would be left to embed
        making = plan.header.making
    started = time.perf_counter()
    tally = Tally(dim=making.shape[-1])
    run.progress.begin(plan.tile)

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
            with closing(run.stream.results(plan.tile)) as outcomes:
                for outcome in outcomes:
                    writer.add(outcome)
                    tally.count(outcome)
                    run.progress.count(outcome)
        except BaseException:  # an interrupt too: what is finished stays finished
            if tally.read:
                _store_partial(writer, work, plan, header)
            raise
        final = header()
        writer.store(work, plan.tile, final)
    return final


def _reopened(plan: TilePlan, work: Store) -> TileResults:
    results = TileResults.open(work, plan.tile)
    if results is None or results.header != plan.header:
        if results is not None:
            results.close()
        raise LookupError(
            f"another run stored results of tile {plan.tile} since this one began: run it again, alone"
        )
    return results


def _kept(results: TileResults, plan: TilePlan) -> Iterator[pa.Table]:
    try:
        yield from results.take(plan.kept)
    except DamagedFileError as error:  # the plan counted on it, and the stream does not have its chips
        raise LookupError(
            f"the vectors in the results of tile {plan.tile} are damaged: embed it again with force"
        ) from error


def _store_partial(
    writer: ResultsWriter, work: Store, plan: TilePlan, header: Callable[[], ResultsHeader]
) -> None:
    tile = plan.tile
    try:
        partial = header()
        at_hand = _at_hand(work, plan, partial.making.fingerprint)
        if at_hand > partial.summary.chips:  # every chip was to be done again
            log.warning(
                "tile %s: the earlier results stay, as they hold for %d of its chips, and the run that broke"
                " finished %d",
                tile,
                at_hand,
                partial.summary.chips,
            )
            return
        writer.store(work, tile, partial)
    except Exception as error:  # what brought us here matters more
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
