"""Embed tiles: what is left to do of each, doing it, keeping what is finished whatever happens.

The work of the asset `chip_embeddings`, without Dagster: `plan_tiles` compares the inventories with the
results of earlier runs, `embed_tile` takes one tile's outcomes out of the stream and stores them.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from clay_assets.inventory import read_inventory
from clay_assets.outcomes import Embedded, NoUsableChips, Outcome, Skipped
from clay_assets.preview import tile_picture
from clay_assets.progress import Progress
from clay_assets.resources.encoder import ClayEncoder
from clay_assets.storage import StorageError, Store, StoredObject
from clay_assets.stream import ChipStream
from clay_assets.tables import Fingerprint, chips_digest
from clay_assets.tile_results import Making, ResultsHeader, ResultsWriter, TileResults, TileSummary
from clay_model import Embedder, embedding_shape

log = logging.getLogger(__name__)

LOOKUPS = 16
"""Tiles whose state is looked up at a time: each takes two or three small requests."""


@dataclass(frozen=True)
class TilePlan:
    """What is left to do of a tile.

    Attributes:
        tile: MGRS code.
        chips: Its inventory.
        header: Of its results in the store; None where there are none.
        kept: Rows of those results that still hold, in the order of the inventory.
        todo: Chips to embed, in the order of the inventory.
        problem: Why the tile cannot be planned; it is raised when the tile's turn comes.
    """

    tile: str
    chips: Sequence[StoredObject] = ()
    header: ResultsHeader | None = None
    kept: Sequence[int] = ()
    todo: Sequence[StoredObject] = ()
    problem: Exception | None = None

    @property
    def is_current(self) -> bool:
        """Whether the results in the store are complete as they are."""
        return self.header is not None and self.header.digest == chips_digest(self.chips) and not self.todo


def plan_tiles(
    work: Store, tiles: Sequence[str], fingerprint: Fingerprint, *, force: bool = False
) -> dict[str, TilePlan]:
    """Look up many tiles at once.

    Args:
        work: Store of inventories and results.
        tiles: MGRS codes.
        fingerprint: Of the vectors wanted; results of another are stale.
        force: Embed every chip again, whatever is there.

    Returns:
        A plan for each tile, in the order given; one that could not be looked up says why in `problem`.

    Raises:
        StorageError: If the trouble is systemic: no other tile would fare better.
    """

    def plan(tile: str) -> TilePlan:
        try:
            return _plan_tile(work, tile, fingerprint, force=force)
        except StorageError as error:
            if error.systemic:
                raise
            return TilePlan(tile, problem=error)
        except LookupError as error:
            return TilePlan(tile, problem=error)

    with ThreadPoolExecutor(LOOKUPS, thread_name_prefix="plan") as pool:
        return dict(zip(tiles, pool.map(plan, tiles), strict=True))


def _plan_tile(work: Store, tile: str, fingerprint: Fingerprint, *, force: bool) -> TilePlan:
    chips = read_inventory(work, tile)
    results = None if force else TileResults.open(work, tile)
    if results is None:
        return TilePlan(tile, chips, todo=chips)
    with results:
        header = results.header
        if header.making.fingerprint != fingerprint:
            return TilePlan(tile, chips, todo=chips)
        if header.digest == chips_digest(chips):
            return TilePlan(tile, chips, header)
        table = results.columns(["source_url", "etag"])
    found = zip(table["source_url"].to_pylist(), table["etag"].to_pylist(), strict=True)
    rows = {key: row for row, key in enumerate(found)}
    kept = [rows[chip.url, chip.etag] for chip in chips if (chip.url, chip.etag) in rows]
    todo = [chip for chip in chips if (chip.url, chip.etag) not in rows]
    return TilePlan(tile, chips, header, kept, todo)


@dataclass
class EmbeddingRun:
    """What the tiles of one run share.

    Attributes:
        stream: Embeds the chips that the plans left to do.
        progress: Tells of each.
        making: How the stream makes vectors; None where there is nothing to embed.
    """

    stream: ChipStream
    progress: Progress
    making: Making | None

    def in_words(self) -> str:
        """What the run's encoders did, in one line."""
        if self.making is None:
            return "every tile is current: no network was loaded"
        clock, making = self.stream.clock, self.making
        return (
            f"{making.model} at {making.fingerprint.precision} on {making.device}: {clock.batches} batches,"
            f" the encoder waited {clock.waiting:.2f} s of {clock.encoding + clock.waiting:.2f} s"
        )


@contextmanager
def embedding_run(
    plans: Mapping[str, TilePlan], chips: Store, encoder: ClayEncoder
) -> Iterator[EmbeddingRun]:
    """Start embedding what the plans left to do; the network is loaded only if there is something.

    Args:
        plans: Of the run's tiles, in the order in which they will be taken.
        chips: Store of chips.
        encoder: Gives the network, one copy a device.

    Yields:
        The run, for `embed_tile`. Everything it started is stopped at the end, also in the middle.
    """
    todo = {tile: plan.todo for tile, plan in plans.items()}
    count = sum(len(part) for part in todo.values())
    embedders = encoder.embedders() if count else ()
    stream = ChipStream(
        todo,
        read=chips.read,
        embedders=embedders,
        level=encoder.chosen_level(),
        batch_size=encoder.chips_per_batch(embedders) if embedders else 1,
    )
    making = _making(encoder, embedders) if embedders else None
    with stream, Progress(count) as progress:
        yield EmbeddingRun(stream, progress, making)


def _making(encoder: ClayEncoder, embedders: Sequence[Embedder]) -> Making:
    first = embedders[0]
    return Making(
        fingerprint=encoder.fingerprint(),
        shape=embedding_shape(encoder.chosen_level(), first.dimensions.dim),
        model=f"clay-v0-{first.model_size}",
        untrained=first.untrained,
        device=", ".join(str(embedder.device) for embedder in embedders),
    )


def embed_tile(plan: TilePlan, run: EmbeddingRun, work: Store) -> ResultsHeader:
    """Finish one tile and store its results.

    However the tile ends, by an error or by an interrupt, the chips that were done are stored, so that the
    next run goes on from there.

    Args:
        plan: What is left to do of the tile; one of those that the run was started with.
        run: Embeds it.
        work: Store of results.

    Returns:
        What the stored results say of themselves.

    Raises:
        NoUsableChips: If the tile has no chips, or each was skipped; the skips are stored all the same.
        StorageError: If a chip could not be fetched, or the results not be stored.
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
    if making is None:  # nothing to embed, only rows to drop
        assert plan.header is not None  # noqa: S101 - else every chip would be left to embed
        making = plan.header.making
    started = time.perf_counter()
    tally = _Tally()
    run.progress.begin(plan.tile)

    def header() -> ResultsHeader:
        summary = tally.summary(seconds=time.perf_counter() - started)
        return ResultsHeader(making, chips_digest(tally.accounted), summary)

    with ResultsWriter(making.width) as writer:
        if plan.kept:
            with _reopened(work, plan.tile) as results:
                writer.copy(tally.count_kept(results.take(plan.kept)))
        try:
            with closing(run.stream.results(plan.tile)) as outcomes:
                for outcome in outcomes:
                    writer.add(outcome)
                    tally.count(outcome)
                    run.progress.count(outcome)
        except BaseException:  # an interrupt too: what is finished stays finished
            if tally.read:
                _store_partial(writer, work, plan.tile, header())
            raise
        final = header()
        writer.store(work, plan.tile, final)
    return final


def _reopened(work: Store, tile: str) -> TileResults:
    results = TileResults.open(work, tile)
    if results is None:
        raise LookupError(f"the results of tile {tile} vanished while it was being embedded: run it again")
    return results


def _store_partial(writer: ResultsWriter, work: Store, tile: str, header: ResultsHeader) -> None:
    try:
        writer.store(work, tile, header)
    except StorageError as error:  # the error that brought us here matters more
        log.warning("the finished chips of tile %s could not be kept: %s", tile, error)
    else:
        log.info("tile %s: %d finished chips are kept for the next run", tile, header.summary.chips)


@dataclass
class _Tally:
    """Counts a tile's outcomes, and gathers what its picture needs: about 4 kB a chip."""

    accounted: list[StoredObject] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    read: int = 0
    encoded: int = 0
    bytes_read: int = 0
    footprints: list[bytes] = field(default_factory=list)
    dates: list[date] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)

    def count(self, outcome: Outcome) -> None:
        """Count a chip of this run."""
        self.accounted.append(outcome.chip)
        self.bytes_read += outcome.chip.size
        self.read += 1
        if isinstance(outcome, Skipped):
            self._skip(outcome.chip.url, outcome.reason, outcome.detail)
        else:
            self.encoded += 1
            self._show(outcome)

    def count_kept(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Count chips of an earlier run on their way past."""
        for table in tables:
            for row in table.to_pylist() if table.num_rows else ():
                chip = StoredObject(row["source_url"], row["size"], row["etag"])
                self.accounted.append(chip)
                if row["reason"] is not None:
                    self._skip(chip.url, row["reason"], row["detail"])
                else:
                    vector = np.asarray(row["embeddings"], dtype=np.float32)
                    self._show(Embedded(chip, row["date"], row["geometry"], vector, row["thumbnail"]))
            yield table

    def _skip(self, url: str, reason: str, detail: str) -> None:
        self.skipped.append({"source_url": url, "reason": reason, "detail": detail})

    def _show(self, embedded: Embedded) -> None:
        self.footprints.append(embedded.footprint)
        self.dates.append(embedded.date)
        # One vector a chip is enough for a colour, whatever the level: a plain (D,) mean over its places.
        self.vectors.append(embedded.vector.reshape(-1, embedded.vector.shape[-1]).mean(axis=0))
        self.thumbnails.append(embedded.thumbnail)

    def summary(self, *, seconds: float) -> TileSummary:
        """The tile in numbers and as a picture."""
        vectors = np.stack(self.vectors) if self.vectors else np.empty((0, 1), dtype=np.float32)
        return TileSummary(
            embedded=len(self.footprints),
            skipped=self.skipped,
            seconds=seconds,
            encoded=self.encoded,
            bytes_read=self.bytes_read,
            bounds=[float(edge) for edge in shapely.total_bounds(shapely.from_wkb(self.footprints))]
            if self.footprints
            else [],
            picture=tile_picture(self.footprints, self.dates, vectors, self.thumbnails),
        )


def _skips_in_words(summary: TileSummary) -> str:
    counts = count_reasons(summary.skipped)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return (
        f"none of its {summary.chips} chips can be used ({reasons}); the first: {summary.skipped[0]['detail']}"
        f" ({summary.skipped[0]['source_url']}). They are read again once they change"
    )


def count_reasons(skipped: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """How many chips were skipped for each reason, the most frequent first."""
    counts: dict[str, int] = {}
    for skip in skipped:
        counts[skip["reason"]] = counts.get(skip["reason"], 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
