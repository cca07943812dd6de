"""Embed one tile: its chips' outcomes out of the run's stream, into the work store.

Belongs here: keeping what is finished however a tile ends. Does not belong here: what is to do of a tile
(`plan`), how chips become vectors (`stream`), the order of the steps (`pipeline`).
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pyarrow as pa

from clay_assets.embedding.energy import EnergyMeter
from clay_assets.embedding.plan import TilePlan
from clay_assets.embedding.run import EmbeddingRun
from clay_assets.parquet import DamagedFileError
from clay_assets.results import ResultsHeader, ResultsWriter, TileResults, TileSummary
from clay_assets.results.counts import Tally, count_reasons
from clay_assets.results.fingerprint import chip_key, chips_digest
from clay_assets.results.outcomes import NoUsableChips
from clay_assets.results.pieces import PieceLimits, PieceWriter
from clay_assets.state.comparison import is_complete
from clay_assets.storage import AccessDenied, Store

log = logging.getLogger(__name__)

PIECE_LIMITS = PieceLimits()


class ResultsChanged(RuntimeError):
    """The results of a tile are no longer those that its plan was made for."""


def embed_planned(
    plan: TilePlan,
    run: EmbeddingRun,
    work: Store,
    on_chip: Callable[[], None] = lambda: None,
    limits: PieceLimits = PIECE_LIMITS,
) -> ResultsHeader:
    """Finish one tile and store its results.

    However the tile ends, by an error or by an interrupt, the finished chips are stored, so that the next run
    continues from there; unless earlier results that are still valid account for more of them. Of a process
    that is killed, pieces remain, for `fold_pieces`.

    Args:
        plan: What is to embed of the tile; tiles come in the order in which they were added to the run.
        run: Has the tile's chips in its stream.
        work: Store of results.
        on_chip: Called after each chip.
        limits: When the chips finished so far are stored as a piece.

    Returns:
        What the stored results say of themselves.

    Raises:
        NoUsableChips: If each chip was skipped; the skips are stored all the same. StorageError: If a chip
        could not be fetched, none of them may be read, or the results not be stored. EncodingFailed: If the
        network could not embed a chip. ResultsChanged: If another run replaced the tile's results since the
        plan was made, or they are damaged
            where the plan did not look.
    """
    header = plan.header
    if header is None or not plan.is_current:
        try:
            header = _embed(plan, run, work, on_chip, limits)
        except ResultsChanged as changed:
            header = _finished_by_another(plan, run, work)
            if header is None:
                raise
            log.info("tile %s: taken as another run finished it meanwhile (%s)", plan.tile, changed)
    if not header.summary.embedded:
        raise NoUsableChips(f"tile {plan.tile}: {_skips_in_words(header.summary)}")
    return header


def _finished_by_another(plan: TilePlan, run: EmbeddingRun, work: Store) -> ResultsHeader | None:
    """What the results say that another run stored since the plan was made; None if they are not complete."""
    results = TileResults.open(work, plan.tile, plan.fingerprint)
    if results is None:
        return None
    with results:
        header = results.header
    limit = run.making(plan).max_nodata
    changed = header != plan.header
    return header if changed and is_complete(plan.tile, plan.chips, header, max_nodata=limit) else None


def _embed(
    plan: TilePlan, run: EmbeddingRun, work: Store, on_chip: Callable[[], None], limits: PieceLimits
) -> ResultsHeader:
    making = run.making(plan)
    started = run.begin(plan)
    tally = Tally(dim=making.shape[-1])
    meter = EnergyMeter(run.counter(plan))

    def header(ended: float) -> ResultsHeader:
        return ResultsHeader(
            making,
            digest=chips_digest(plan.tile, tally.accounted),
            summary=tally.summary(seconds=ended - started, energy=meter.record),
            left=len(plan.chips) - len(tally.accounted),
        )

    with (
        ResultsWriter(making.width) as writer,
        PieceWriter(work, plan.tile, making, len(plan.chips), limits) as pieces,
    ):
        if plan.kept:
            with _reopened(plan, work) as results:
                for table in _kept(results, plan):
                    writer.copy(table)
                    tally.count_kept(table)
        try:
            if plan.todo:
                with meter, closing(run.stream(plan).results(plan.tile)) as outcomes:
                    for outcome in outcomes:
                        writer.add(outcome)
                        pieces.add(outcome)
                        tally.count(outcome)
                        run.progress.count(outcome)
                        on_chip()
        except BaseException:  # an interrupt too: what is finished stays finished
            if tally.read and _store_partial(writer, work, plan, lambda: header(time.perf_counter())):
                pieces.remove()
            raise
        finally:
            ended = run.end()
        final = header(ended)
        _require_readable(plan, final)
        writer.store(work, plan.tile, final)
        pieces.remove()
    return final


def _require_readable(plan: TilePlan, header: ResultsHeader) -> None:
    """Tell one chip that may not be read, a skip, from a store that may not: that is not kept as skips."""
    if {skip["reason"] for skip in header.summary.skipped} == {"unreadable"} and not header.summary.embedded:
        raise AccessDenied(
            f"none of the {len(plan.chips)} chips of tile {plan.tile} may be read:"
            f" {header.summary.skipped[0]['detail']}"
        )


def _reopened(plan: TilePlan, work: Store) -> TileResults:
    results = TileResults.open(work, plan.tile, plan.fingerprint)
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
) -> bool:
    """Store what is finished; returns whether the store holds all of it that is worth keeping."""
    tile = plan.tile
    try:
        partial = header()
        at_hand = _at_hand(work, plan)
        if at_hand > partial.summary.chips:  # every chip was to be embedded again
            log.warning(
                "tile %s: the earlier results stay, as they are valid for %d of its chips, and the run that"
                " broke finished %d",
                tile,
                at_hand,
                partial.summary.chips,
            )
            return True
        writer.store(work, tile, partial)
    except Exception as error:  # the error that ended the tile matters more
        log.warning("the finished chips of tile %s could not be kept: %s", tile, error)
        return False
    log.info("tile %s: %d finished chips are kept for the next run", tile, partial.summary.chips)
    return True


def _at_hand(work: Store, plan: TilePlan) -> int:
    """Chips of the inventory that the results in the store account for as this run would."""
    results = TileResults.open(work, plan.tile, plan.fingerprint)
    if results is None:
        return 0
    with results:
        try:
            found = {(row.key, row.etag) for row in results.chips()}
        except DamagedFileError:
            return 0
    return sum((chip_key(chip.url, plan.tile), chip.etag) in found for chip in plan.chips)


def _skips_in_words(summary: TileSummary) -> str:
    counts = count_reasons(summary.skipped)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return (
        f"none of its {summary.chips} chips can be used ({reasons});"
        f" the first: {summary.skipped[0]['detail']} ({summary.skipped[0]['source_url']})."
        " They are read again once they change, or with the config `retry_skipped: true`"
    )
