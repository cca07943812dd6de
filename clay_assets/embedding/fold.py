"""Merges the pieces that a killed run left into a tile's results.

Does not belong here: storing pieces (`results.pieces`), deciding which rows are valid (`state.comparison`),
planning what remains (`plan`).
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from clay_assets.chips import READER_VERSION
from clay_assets.parquet import DamagedFileError
from clay_assets.results import Fingerprint, ResultsHeader, ResultsWriter, Target, TileResults
from clay_assets.results.counts import TileCounts
from clay_assets.results.header import chip_key, chips_digest
from clay_assets.results.pieces import pieces_prefix, remove_pieces
from clay_assets.state.comparison import compare
from clay_assets.storage import Store, StoredObject

log = logging.getLogger(__name__)

# A merge holds some row groups of 16 MB, and many tiles are planned at once.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class _Source:
    """Results or a piece of them, and the rows to take."""

    results: TileResults
    rows: Sequence[int]


class _Damaged(Exception):
    """The vectors in one of the files cannot be read."""

    def __init__(self, results: TileResults, error: DamagedFileError) -> None:
        super().__init__(str(error))
        self.results = results


def fold_pieces(
    work: Store, tile: str, chips: Sequence[StoredObject], target: Target, pieces: Sequence[StoredObject]
) -> None:
    """Rewrite a tile's results with the chips that its pieces hold, then remove the pieces.

    If several files have a chip, the rows of the last piece are taken. Pieces of other fingerprints stay, for
    a run with those settings.

    Args:
        work: Store of results.
        tile: MGRS code.
        chips: Its inventory.
        target: Which results count as current.
        pieces: The tile's pieces, found by `find_pieces`.

    Raises:
        StorageError: If the store refuses.
    """
    with _one_at_a_time:
        for fingerprint in target.fingerprints:
            prefix = work.url(pieces_prefix(tile, fingerprint))
            found = [piece for piece in pieces if piece.url.startswith(prefix)]
            if found:
                _fold(work, tile, chips, fingerprint, target.max_nodata, found)
                remove_pieces(work, tile, found)


def _fold(
    work: Store,
    tile: str,
    chips: Sequence[StoredObject],
    fingerprint: Fingerprint,
    max_nodata: float,
    pieces: Sequence[StoredObject],
) -> None:
    with ExitStack() as stack:
        files = [TileResults.open(work, tile, fingerprint, piece) for piece in (None, *pieces)]
        usable = [stack.enter_context(file) for file in files if file is not None]
        while True:
            sources = _sources(tile, chips, max_nodata, usable)
            if all(source.results is files[0] for source in sources):  # no piece adds anything
                return
            try:
                header = _rewrite(work, tile, chips, max_nodata, sources)
                break
            except _Damaged as damage:
                log.warning("some chips of tile %s are embedded again: %s", tile, damage)
                usable.remove(damage.results)
    log.info(
        "tile %s: %d finished chips are kept, some of a run that was killed; %d chips remain",
        tile,
        header.summary.chips,
        header.remaining,
    )


def _sources(
    tile: str, chips: Sequence[StoredObject], max_nodata: float, files: Sequence[TileResults]
) -> list[_Source]:
    """Return the rows to take from each file: each chip's from the last file that has it."""
    missing = {(chip_key(chip.url, tile), chip.etag): chip for chip in chips}
    found: list[_Source] = []
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
            found.append(_Source(results, kept))
    return found[::-1]


def _rewrite(
    work: Store, tile: str, chips: Sequence[StoredObject], max_nodata: float, sources: Sequence[_Source]
) -> ResultsHeader:
    """Store the rows of several files as the tile's results."""
    provenance = replace(sources[-1].results.header.provenance, reader=READER_VERSION, max_nodata=max_nodata)
    counts = TileCounts(dim=provenance.shape[-1])
    with ResultsWriter(provenance.width) as writer:
        for source in sources:
            try:
                for table in source.results.take(source.rows):
                    writer.copy(table)
                    counts.count_kept(table)
            except DamagedFileError as error:
                raise _Damaged(source.results, error) from error
        made = [source.results.header.summary for source in sources]
        summary = replace(
            counts.summary(seconds=sum(summary.seconds for summary in made)),
            encoded=sum(summary.encoded for summary in made),
            bytes_read=sum(summary.bytes_read for summary in made),
        )
        header = ResultsHeader(
            provenance,
            chips_digest(tile, counts.accounted),
            summary,
            remaining=len(chips) - len(counts.accounted),
        )
        writer.store(work, tile, header)
    return header
