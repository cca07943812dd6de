"""Plans a tile: takes over what a killed run left, and lists the chips to embed."""

import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from clay_assets.chips import READER_VERSION
from clay_assets.parquet import DamagedFileError
from clay_assets.results import (
    Fingerprint,
    ResultsHeader,
    ResultsWriter,
    Target,
    TileResults,
    chip_key,
    chips_digest,
)
from clay_assets.results.counts import TileCounts
from clay_assets.results.pieces import pieces_prefix, remove_pieces
from clay_assets.state.comparison import compare, is_complete
from clay_assets.storage import Store, StoredObject

log = logging.getLogger(__name__)

Objects = Sequence[StoredObject]  # chips, or pieces of results
Sources = list[tuple[TileResults, Sequence[int]]]  # files of results, and the rows to take from each

# A merge holds some row groups of 16 MB, and many tiles are planned at once.
_one_merge_at_a_time = threading.Lock()


@dataclass(frozen=True)
class TilePlan:
    """The chips of a tile to embed, and the results to keep."""

    tile: str
    chips: Objects  # its inventory
    fingerprint: Fingerprint  # of its results
    header: ResultsHeader | None = None  # of the stored results; None if there are no valid ones
    kept: Sequence[int] = ()  # rows of those results that are still valid, in the file's order
    todo: Objects = ()  # chips to embed, in the order of the inventory
    is_current: bool = False  # whether the stored results are complete


def plan_tile(
    work: Store,
    tile: str,
    chips: Objects,
    target: Target,
    *,
    force: bool = False,
    retry_skipped: bool = False,
) -> TilePlan:
    """Compare a tile's inventory, `chips`, with its stored results.

    `force`: embed every chip again, even if its results are current; `retry_skipped`: those skipped before.
    """
    results = target.results(work, tile)
    if results is None:
        return TilePlan(tile, chips, target.preferred, todo=chips)
    with results:
        header, limit = results.header, target.max_nodata
        fingerprint = header.provenance.fingerprint
        if force:
            return TilePlan(tile, chips, fingerprint, todo=chips)
        to_retry = retry_skipped and header.summary.skipped
        if is_complete(tile, chips, header, max_nodata=limit) and not to_retry:
            return TilePlan(tile, chips, fingerprint, header, is_current=True)
        try:
            rows = results.chips()
        except DamagedFileError as error:
            log.warning("the results of tile %s are recomputed: %s", tile, error)
            return TilePlan(tile, chips, fingerprint, todo=chips)
    found = compare(tile, chips, header, rows, max_nodata=limit, retry_skipped=retry_skipped)
    return TilePlan(tile, chips, fingerprint, header, found.kept, found.to_embed)


def fold_pieces(work: Store, tile: str, chips: Objects, target: Target, pieces: Objects) -> None:
    """Rewrite a tile's results with the chips of its pieces (`results.pieces`), then remove the pieces.

    If several files have a chip, the rows of the last piece are taken. Pieces of other fingerprints stay, for
    a run with those settings.
    """
    with _one_merge_at_a_time:
        for fingerprint in target.fingerprints:
            prefix = work.url(pieces_prefix(tile, fingerprint))
            found = [piece for piece in pieces if piece.url.startswith(prefix)]
            if found:
                _fold(work, tile, chips, fingerprint, target.max_nodata, found)
                remove_pieces(work, tile, found)


def _fold(
    work: Store, tile: str, chips: Objects, fingerprint: Fingerprint, max_nodata: float, pieces: Objects
) -> None:
    with ExitStack() as stack:
        opened = [TileResults.open(work, tile, fingerprint, piece) for piece in (None, *pieces)]
        files = [stack.enter_context(file) for file in opened if file is not None]
        sources = _sources(tile, chips, max_nodata, files)
        while any(results is not opened[0] for results, _ in sources):  # a piece adds chips
            damaged = _rewrite(work, tile, chips, max_nodata, sources)
            if damaged is None:
                return
            files.remove(damaged)
            sources = _sources(tile, chips, max_nodata, files)


def _sources(tile: str, chips: Objects, max_nodata: float, files: Sequence[TileResults]) -> Sources:
    """Return the rows to take from each file: each chip's from the last file that has it."""
    missing = {(chip_key(chip.url, tile), chip.etag): chip for chip in chips}
    found: Sources = []
    for results in reversed(files):
        try:
            known = results.chips()
        except DamagedFileError as error:
            log.warning("some chips of tile %s are embedded again: %s", tile, error)
            continue
        kept = compare(tile, list(missing.values()), results.header, known, max_nodata=max_nodata).kept
        for row in kept:
            missing.pop((known[row].key, known[row].etag), None)  # None: another window of the chip
        if kept:
            found.append((results, kept))
    return found[::-1]


def _rewrite(
    work: Store, tile: str, chips: Objects, max_nodata: float, sources: Sources
) -> TileResults | None:
    """Store the rows of several files as the tile's results, or return the file whose vectors are damaged."""
    headers = [results.header for results, _ in sources]
    provenance = replace(headers[-1].provenance, reader=READER_VERSION, max_nodata=max_nodata)
    counts = TileCounts(dim=provenance.shape[-1])
    with ResultsWriter(provenance.width) as writer:
        for results, rows in sources:
            try:
                for table in results.take(rows):
                    writer.copy(table)
                    counts.count_kept(table)
            except DamagedFileError as error:
                log.warning("some chips of tile %s are embedded again: %s", tile, error)
                return results
        summary = replace(
            counts.summary(seconds=sum(header.summary.seconds for header in headers)),
            encoded=sum(header.summary.encoded for header in headers),
            bytes_read=sum(header.summary.bytes_read for header in headers),
        )
        remaining = len(chips) - len(counts.accounted)
        digest = chips_digest(tile, counts.accounted)
        writer.store(work, tile, ResultsHeader(provenance, digest, summary, remaining))
    message = "tile %s: %d finished chips are kept, some of a run that was killed; %d chips remain"
    log.info(message, tile, summary.chips, remaining)
    return None
