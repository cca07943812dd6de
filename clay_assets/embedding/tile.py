"""Embeds one tile: takes its chips' outcomes from the run's stream and stores its results.

Belongs here: storing the finished chips, however a tile ends. Does not belong here: planning a tile (`plan`),
turning chips into vectors (`stream`), the order of the steps (`pipeline`).
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pyarrow as pa

from clay_assets.embedding.energy import EnergyMeter
from clay_assets.embedding.plan import TilePlan
from clay_assets.embedding.run import EmbeddingRun
from clay_assets.parquet import DamagedFileError
from clay_assets.results import ResultsHeader, ResultsWriter, TileResults, TileSummary, chip_key, chips_digest
from clay_assets.results.counts import TileCounts
from clay_assets.results.outcomes import NoUsableChips
from clay_assets.results.pieces import PieceLimits, PieceWriter
from clay_assets.state.comparison import is_complete
from clay_assets.storage import AccessDenied, ObjectChanged, ObjectMissing, Store, again_if_replaced

log = logging.getLogger(__name__)

PIECE_LIMITS = PieceLimits()


class ResultsChanged(RuntimeError):
    """The results of a tile changed after its plan was made."""


def embed_planned(
    plan: TilePlan,
    run: EmbeddingRun,
    work: Store,
    on_chip: Callable[[], None] = lambda: None,
    limits: PieceLimits = PIECE_LIMITS,
) -> ResultsHeader:
    """Embed one tile and store its results.

    If the tile ends with an error or an interrupt, the finished chips are stored and the next run continues
    from there, unless earlier results are valid for more chips. A process that is killed leaves pieces, which
    `fold_pieces` merges.

    Args:
        plan: The tile's plan; tiles come in the order in which they were added to the run.
        run: The run whose stream has the tile's chips.
        work: Store of results.
        on_chip: Called after each chip.
        limits: When the chips finished so far are stored as a piece.

    Returns:
        Header of the stored results.

    Raises:
        NoUsableChips: If each chip was skipped; the skips are stored.
        StorageError: If a chip could not be fetched, access to every chip is denied, or the results could not
            be stored.
        EncodingFailed: If the network could not embed a chip.
        ResultsChanged: If another run replaced the tile's results since the plan was made, or their vectors
            are damaged.
    """
    header = plan.header
    if header is None or not plan.is_current:
        try:
            header = _embed(plan, run, work, on_chip, limits)
        except ResultsChanged as changed:
            header = _finished_by_another(plan, run, work)
            if header is None:
                raise
            log.info("tile %s: another run finished it meanwhile (%s)", plan.tile, changed)
    if not header.summary.embedded:
        raise NoUsableChips(f"tile {plan.tile}: {_skips_in_words(header.summary)}")
    return header


def _finished_by_another(plan: TilePlan, run: EmbeddingRun, work: Store) -> ResultsHeader | None:
    """Return the header of results that another run has completed since the plan; None without any."""

    def read() -> ResultsHeader | None:
        results = TileResults.open(work, plan.tile, plan.fingerprint)
        if results is None:
            return None
        with results:
            return results.header

    header = again_if_replaced(read)
    if header is None:
        return None
    limit = run.provenance(plan).max_nodata
    changed = header != plan.header
    return header if changed and is_complete(plan.tile, plan.chips, header, max_nodata=limit) else None


def _embed(
    plan: TilePlan, run: EmbeddingRun, work: Store, on_chip: Callable[[], None], limits: PieceLimits
) -> ResultsHeader:
    provenance = run.provenance(plan)
    started = run.begin(plan)
    counts = TileCounts(dim=provenance.shape[-1])
    meter = EnergyMeter(run.counter(plan))

    def header(ended: float) -> ResultsHeader:
        return ResultsHeader(
            provenance,
            digest=chips_digest(plan.tile, counts.accounted),
            summary=counts.summary(seconds=ended - started, energy=meter.record),
            remaining=len(plan.chips) - len(counts.accounted),
        )

    with (
        ResultsWriter(provenance.width) as writer,
        PieceWriter(work, plan.tile, provenance, len(plan.chips), limits) as pieces,
    ):
        if plan.kept:
            with _reopened(plan, work) as results:
                for table in _kept(results, plan):
                    writer.copy(table)
                    counts.count_kept(table)
        try:
            if plan.todo:
                with meter, closing(run.stream(plan).results(plan.tile)) as outcomes:
                    for outcome in outcomes:
                        writer.add(outcome)
                        pieces.add(outcome)
                        counts.count(outcome)
                        run.progress.count(outcome)
                        on_chip()
        except BaseException:  # also an interrupt: finished chips are stored
            if counts.read and _store_partial(writer, work, plan, lambda: header(time.perf_counter())):
                pieces.remove()
            raise
        finally:
            ended = run.end()
        final = header(ended)
        _require_readable(plan, final)
        try:
            writer.store(work, plan.tile, final)
        except Exception:
            raise
        except BaseException:  # an interrupt does not wait for the request: store the results again
            if _store_partial(writer, work, plan, lambda: final):
                pieces.remove()
            raise
        pieces.remove()
    return final


def _require_readable(plan: TilePlan, header: ResultsHeader) -> None:
    """Raise if access to every chip is denied: the store is at fault, so no skips are stored."""
    if {skip["reason"] for skip in header.summary.skipped} == {"unreadable"} and not header.summary.embedded:
        raise AccessDenied(
            f"none of the {len(plan.chips)} chips of tile {plan.tile} may be read:"
            f" {header.summary.skipped[0]['detail']}"
        )


def _reopened(plan: TilePlan, work: Store) -> TileResults:
    results = again_if_replaced(partial(TileResults.open, work, plan.tile, plan.fingerprint))
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
    except DamagedFileError as error:  # their chips are not in the stream, because the plan kept the rows
        raise ResultsChanged(
            f"the vectors in the results of tile {plan.tile} are damaged: embed it again with force"
        ) from error
    except (ObjectChanged, ObjectMissing) as error:
        raise ResultsChanged(f"another run replaced the results of tile {plan.tile}: {error}") from error


def _store_partial(
    writer: ResultsWriter, work: Store, plan: TilePlan, header: Callable[[], ResultsHeader]
) -> bool:
    """Store the finished chips unless the store has better results; return whether either is stored."""
    tile = plan.tile
    try:
        partial = header()
        valid = _valid_chips(work, plan)
        if valid > partial.summary.chips:  # a forced run embedded every chip again
            log.warning(
                "tile %s: the earlier results stay, as they are valid for %d of its chips, and the"
                " interrupted run finished %d",
                tile,
                valid,
                partial.summary.chips,
            )
            return True
        writer.store(work, tile, partial)
    except Exception as error:  # the error that ended the tile matters more
        log.warning("the finished chips of tile %s could not be stored: %s", tile, error)
        return False
    log.info("tile %s: %d finished chips are kept for the next run", tile, partial.summary.chips)
    return True


def _valid_chips(work: Store, plan: TilePlan) -> int:
    """Count the inventory's chips for which the stored results are valid."""

    def read() -> set[tuple[str, str]]:
        results = TileResults.open(work, plan.tile, plan.fingerprint)
        if results is None:
            return set()
        with results:
            try:
                return {(row.key, row.etag) for row in results.chips()}
            except DamagedFileError:
                return set()

    found = again_if_replaced(read)
    return sum((chip_key(chip.url, plan.tile), chip.etag) in found for chip in plan.chips)


def _skips_in_words(summary: TileSummary) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary.reasons.items())
    return (
        f"none of its {summary.chips} chips can be used ({reasons});"
        f" the first: {summary.skipped[0]['detail']} ({summary.skipped[0]['source_url']})."
        " They are read again once they change, or with the config `retry_skipped: true`"
    )
