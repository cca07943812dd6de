"""Looking at tiles: a few small requests each, and many tiles at once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from clay_assets.parquet import DamagedFileError
from clay_assets.publishing.publish import inputs_of, made_from, published_files
from clay_assets.results import ResultsHeader, TileResults
from clay_assets.results.fingerprint import chips_digest
from clay_assets.state.comparison import compare, is_complete
from clay_assets.state.states import Rate, TileState, TileStores
from clay_assets.state.target import Target
from clay_assets.storage import ObjectChanged, ObjectMissing, Store, StoredObject
from clay_assets.tiles.inventory import list_chips

LOOKERS = 32
"""Tiles looked at at a time: each takes three or four small requests, nearly all of it waiting."""


def survey(stores: TileStores, tiles: Sequence[str], wanted: Target) -> list[TileState]:
    """Look at many tiles at once.

    One LIST for each tile's chips (each 1,000 of them), one reading of its results' footer and one of its
    published file's; one LIST for the store of published files.

    Args:
        stores: Where everything lies.
        tiles: MGRS codes.
        wanted: How they are to be embedded.

    Returns:
        The tiles' states, in the order given.

    Raises:
        StorageError: If a store refuses: nothing is said rather than half of it.
    """
    published = published_files(stores.output, wanted.version)
    with ThreadPoolExecutor(LOOKERS, thread_name_prefix="look") as pool:
        looks = pool.map(lambda tile: _look_again(stores, tile, wanted, published.get(tile, [])), tiles)
        return list(looks)  # at the first error the rest is cancelled


def _look_again(stores: TileStores, tile: str, wanted: Target, files: list[StoredObject]) -> TileState:
    try:
        return _look(stores, tile, wanted, files)
    except ObjectChanged:  # a run stored the tile between two of our requests
        return _look(stores, tile, wanted, files)


def _look(stores: TileStores, tile: str, wanted: Target, files: list[StoredObject]) -> TileState:
    chips = list_chips(stores.chips, tile).chips
    size = sum(chip.size for chip in chips)
    new = TileState(tile, "new", len(chips), size, len(chips), size, chips_digest(chips))
    if not chips:
        return replace(new, state="empty")
    results = TileResults.open(stores.work, tile)
    if results is None:
        return new
    with results:
        header = results.header
        seen = replace(new, embedded=inputs_of(header), rate=_rate(header))
        differences = wanted.differences(header.making.fingerprint)
        if not is_complete(header, chips):
            try:
                found = compare(chips, header, results.chips())
            except DamagedFileError:  # a run embeds such a tile again
                return new
            todo = chips if differences else found.todo
            detail = "; ".join(filter(None, [found.why, differences]))
            return replace(
                seen,
                state="changed",
                todo=len(todo),
                todo_bytes=sum(chip.size for chip in todo),
                detail=detail,
            )
    if differences:
        return replace(seen, state="stale", detail=differences)
    done = replace(seen, todo=0, todo_bytes=0)
    if not header.summary.embedded:
        return replace(done, state="unusable", detail=header.summary.skipped[0]["detail"])
    if not _is_published(stores.output, files, done.embedded):
        return replace(done, state="unpublished")
    return replace(done, state="current")


def _rate(header: ResultsHeader) -> Rate | None:
    summary, making = header.summary, header.making
    if not summary.encoded or summary.seconds <= 0:
        return None
    return Rate(summary.encoded, summary.seconds, making.model, making.device)


def _is_published(output: Store, files: list[StoredObject], inputs: str) -> bool:
    """Whether exactly one file lies there, made from the results as they are."""
    if len(files) != 1:  # two: a run was killed between storing the new one and removing the old
        return False
    try:
        return made_from(output, files[0]) == inputs
    except (ObjectChanged, ObjectMissing):  # it is being replaced this moment
        return False
