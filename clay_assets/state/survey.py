"""Surveys tiles: the state of each from a few small requests, many tiles at once."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath

from clay_assets.parquet import DamagedFileError
from clay_assets.publishing.versions import inputs_of, made_from, published_files
from clay_assets.results import RESULTS_PREFIX, ResultsHeader
from clay_assets.results.fingerprint import chips_digest
from clay_assets.results.target import Target
from clay_assets.state.comparison import compare, is_complete
from clay_assets.state.states import Rate, TileState, TileStores
from clay_assets.storage import FolderMissing, ObjectChanged, ObjectMissing, Store, StoredObject
from clay_assets.tiles.inventory import list_chips

WORKERS = 32
"""Tiles surveyed at a time: each takes a few small requests, nearly all of it waiting."""


def survey(stores: TileStores, tiles: Sequence[str], target: Target | None, version: int) -> list[TileState]:
    """The states of many tiles.

    One LIST for each tile's chips (each 1,000 of them), one reading of its results' footer and one of its
    published file's; one LIST for the results of all tiles and one for the published files.

    Args:
        stores: Chips, work and published files.
        tiles: MGRS codes.
        target: How they are to be embedded; None: with a checkpoint that no run has used yet.
        version: Of the published files.

    Returns:
        The tiles' states, in the order given.

    Raises:
        StorageError: If a store refuses: no state is reported rather than half of them.
    """
    published = published_files(stores.output, version)
    folders = result_folders(stores.work)

    def look(tile: str) -> TileState:
        found = folders.get(tile, ())
        try:
            return _look(stores, tile, target, found, published.get(tile, []))
        except ObjectChanged:  # a run stored the tile between two of our requests
            return _look(stores, tile, target, found, published.get(tile, []))

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="survey") as pool:
        return list(pool.map(look, tiles))  # at the first error the rest is cancelled


def result_folders(work: Store) -> Mapping[str, Collection[str]]:
    """For each tile the names of the folders that hold results of it; from one listing."""
    found: dict[str, list[str]] = defaultdict(list)
    with suppress(FolderMissing):  # nothing was embedded yet
        for item in work.list(RESULTS_PREFIX):
            path = PurePosixPath(item.url)
            if path.suffix == ".parquet":
                found[path.stem].append(path.parent.name)
    return found


def _look(
    stores: TileStores,
    tile: str,
    target: Target | None,
    folders: Collection[str],
    files: list[StoredObject],
) -> TileState:
    chips = list_chips(stores.chips, tile).chips
    size = sum(chip.size for chip in chips)
    new = TileState(tile, "new", len(chips), size, len(chips), size, chips_digest(tile, chips))
    if not chips:
        return replace(new, state="empty")
    wanted = {fingerprint.folder for fingerprint in target.fingerprints} if target else set()
    results = target.results(stores.work, tile) if target and wanted & set(folders) else None
    if results is None or target is None:
        others = sorted(set(folders) - wanted)
        return replace(new, state="stale", detail=f"embedded as {', '.join(others)}") if others else new
    with results:
        header = results.header
        seen = replace(
            new, embedded=inputs_of(header.provenance.fingerprint, header.digest, chips), rate=_rate(header)
        )
        if not is_complete(tile, chips, header, max_nodata=target.max_nodata):
            try:
                found = compare(tile, chips, header, results.chips(), max_nodata=target.max_nodata)
            except DamagedFileError:  # a run embeds such a tile again
                return new
            todo_bytes = sum(chip.size for chip in found.todo)
            return replace(
                seen, state="changed", todo=len(found.todo), todo_bytes=todo_bytes, detail=found.why
            )
    done = replace(seen, todo=0, todo_bytes=0)
    if not header.summary.embedded:
        return replace(done, state="unusable", detail=header.summary.skipped[0]["detail"])
    if not _is_published(stores.output, files, done.embedded):
        return replace(done, state="unpublished")
    return replace(done, state="current")


def _rate(header: ResultsHeader) -> Rate | None:
    summary, making = header.summary, header.provenance
    if not summary.encoded or summary.seconds <= 0:
        return None
    return Rate(summary.encoded, summary.seconds, making.model, making.device)


def _is_published(output: Store, files: list[StoredObject], inputs: str) -> bool:
    """Whether exactly one file exists, made from the results as they are."""
    if len(files) != 1:  # two: a run was killed between storing the new one and removing the old
        return False
    try:
        return made_from(output, files[0]) == inputs
    except (ObjectChanged, ObjectMissing):  # it is being replaced this moment
        return False
