"""Embeds one tile: takes its chips' outcomes from the run's stream and stores them, however it ends."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from functools import partial

import pyarrow as pa

from clay_assets.embedding.energy import EnergyMeter
from clay_assets.embedding.plan import TilePlan, plan_tile
from clay_assets.embedding.run import EmbeddingRun
from clay_assets.parquet import DamagedFileError
from clay_assets.results import ResultsHeader, ResultsWriter, Target, TileResults, chips_digest
from clay_assets.results.counts import TileCounts
from clay_assets.results.outcomes import NoUsableChips, Outcome
from clay_assets.results.pieces import PieceLimits, PieceWriter
from clay_assets.storage import AccessDenied, ObjectChanged, ObjectMissing, Store, again_if_replaced

log = logging.getLogger(__name__)


class ResultsChanged(RuntimeError):
    """The results of a tile changed after its plan was made."""


def embed_planned(
    plan: TilePlan, run: EmbeddingRun, work: Store, on_chip: Callable[[], None], limits: PieceLimits
) -> ResultsHeader:
    """Embed one tile, store its results and return their header; call `on_chip` after each chip.

    Tiles come in the order in which they were added to the run. If the tile ends with an error or an
    interrupt, the finished chips are stored and the next run continues from there, unless earlier results are
    valid for more chips. A process that is killed leaves pieces, which `fold_pieces` merges.

    Raises:
        StorageError: If a chip cannot be fetched or the results cannot be stored.
        EncodingFailed: If the network cannot embed a chip.
        NoUsableChips: If each chip was skipped; the skips are stored.
        AccessDenied: If access to every chip is denied.
        ResultsChanged: If another run replaced the tile's results since the plan was made, or their vectors
            are damaged.
    """
    header = plan.header
    if header is None or not plan.is_current:
        try:
            header = _embed(plan, run, work, on_chip, limits)
        except ResultsChanged as changed:
            now = _plan_again(plan, run, work)
            if now.header is None or not now.is_current or now.header == plan.header:
                raise
            header = now.header
            log.info("tile %s: another run finished it meanwhile (%s)", plan.tile, changed)
    skipped = header.summary.skipped
    if not header.summary.embedded:
        reasons = ", ".join(f"{count} {reason}" for reason, count in header.summary.reasons.items())
        raise NoUsableChips(
            f"tile {plan.tile}: none of its {len(skipped)} chips can be used ({reasons});"
            f" the first: {skipped[0]['detail']} ({skipped[0]['source_url']})."
            " They are read again once they change, or with the config `retry_skipped: true`"
        )
    return header


def _plan_again(plan: TilePlan, run: EmbeddingRun, work: Store) -> TilePlan:
    """Compare the tile's chips with the results that are stored now."""
    target = Target([plan.fingerprint], plan.fingerprint, max_nodata=run.provenance(plan).max_nodata)
    return again_if_replaced(partial(plan_tile, work, plan.tile, plan.chips, target))


def _embed(
    plan: TilePlan, run: EmbeddingRun, work: Store, on_chip: Callable[[], None], limits: PieceLimits
) -> ResultsHeader:
    provenance, network = run.provenance(plan), run.network(plan)
    started = run.begin(plan)
    counts = TileCounts(dim=provenance.shape[-1])
    meter = EnergyMeter(network.counter if network else None)
    unread: list[Outcome] = []

    def header() -> ResultsHeader:
        return ResultsHeader(
            provenance,
            digest=chips_digest(plan.tile, counts.accounted),
            summary=counts.summary(seconds=run.end() - started, energy=meter.record),
            remaining=len(plan.chips) - len(counts.accounted),
        )

    def partial_header() -> ResultsHeader:
        for outcome in unread:
            writer.add(outcome)
            counts.count(outcome)
        return header()

    with (
        ResultsWriter(provenance.width) as writer,
        PieceWriter(work, plan.tile, provenance, len(plan.chips), limits) as pieces,
    ):
        for table in _kept(plan, work):
            writer.copy(table)
            counts.count_kept(table)
        try:
            if network is not None:
                with meter, closing(network.stream.results(plan.tile, unread)) as outcomes:
                    for outcome in outcomes:
                        writer.add(outcome)
                        pieces.add(outcome)
                        counts.count(outcome)
                        run.progress.count(outcome)
                        on_chip()
            final = header()  # makes the picture, which takes seconds: an interrupt may come meanwhile
        except BaseException:  # also an interrupt: finished chips are stored
            if (counts.read or unread) and _store_partial(plan, run, work, writer, partial_header):
                pieces.remove()
            raise
        finally:
            run.end()
        skipped = final.summary.skipped
        if {skip["reason"] for skip in skipped} == {"unreadable"} and not final.summary.embedded:
            # The store is at fault, so no skips are stored.
            raise AccessDenied(
                f"none of the {len(plan.chips)} chips of tile {plan.tile} may be read: {skipped[0]['detail']}"
            )
        try:
            writer.store(work, plan.tile, final)
        except Exception:
            raise
        except BaseException:  # an interrupt does not wait for the request: store the results again
            if _store_partial(plan, run, work, writer, lambda: final):
                pieces.remove()
            raise
        pieces.remove()
    return final


def _kept(plan: TilePlan, work: Store) -> Iterator[pa.Table]:
    """Yield the rows of earlier results that the plan keeps."""
    if not plan.kept:
        return
    open_results = partial(TileResults.open, work, plan.tile, plan.fingerprint)
    with again_if_replaced(open_results) or nullcontext() as results:
        if results is None or results.header != plan.header:
            raise ResultsChanged(
                f"another run stored results of tile {plan.tile} since this one started: run the tile again"
            )
        try:
            yield from results.take(plan.kept)
        except DamagedFileError as error:  # their chips are not in the stream, because the plan kept the rows
            raise ResultsChanged(
                f"the vectors in the results of tile {plan.tile} are damaged: embed it again with force"
            ) from error
        except (ObjectChanged, ObjectMissing) as error:
            raise ResultsChanged(f"another run replaced the results of tile {plan.tile}: {error}") from error


def _store_partial(
    plan: TilePlan, run: EmbeddingRun, work: Store, writer: ResultsWriter, header: Callable[[], ResultsHeader]
) -> bool:
    """Store the finished chips unless the store has better results; return whether either is stored."""
    try:
        found = header()
        finished = found.summary.chips
        valid = len(plan.chips) - len(_plan_again(plan, run, work).todo)
        if valid > finished:  # a forced run embedded every chip again
            message = (
                "tile %s: the earlier results stay, as they are valid for %d of its chips, and the"
                " interrupted run finished %d"
            )
            log.warning(message, plan.tile, valid, finished)
            return True
        writer.store(work, plan.tile, found)
    except Exception as error:  # the error that ended the tile matters more
        log.warning("the finished chips of tile %s could not be stored: %s", plan.tile, error)
        return False
    log.info("tile %s: %d finished chips are kept for the next run", plan.tile, finished)
    return True
