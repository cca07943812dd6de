"""Surveys tiles: the state of each from a few small requests, many tiles at once; and orphaned files."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import NamedTuple

from clay_assets.chips import READER_VERSION
from clay_assets.parquet import DamagedFileError
from clay_assets.publishing.versions import FORMAT_VERSION, inputs_of, made_from, published_files
from clay_assets.results import Target, TileResults, chips_digest, results_key
from clay_assets.results.reader import RESULTS_PREFIX
from clay_assets.state.comparison import compare, is_complete
from clay_assets.state.states import Rate, TileState, TileStores
from clay_assets.storage import FolderMissing, ObjectChanged, ObjectMissing, Store, StoredObject
from clay_assets.tiles.inventory import inventory_of

WORKERS = 32
"""Tiles surveyed at a time: each takes a few small requests, nearly all of it waiting."""

SurveyCache = MutableMapping[str, tuple[str, TileState]]
"""For each tile the digest of its last listings and the state they led to. Threads and surveys may share it.

A tile's state follows from its listings (URL, size and ETag of each chip, of its results and its published
file) and the target alone. So a cached state is used only if none of these has changed.
"""


class _Listed(NamedTuple):
    """What is stored for a tile."""

    chips: Sequence[StoredObject]  # and other objects in its folder
    results: Mapping[str, StoredObject]  # by the name of their folder
    files: Sequence[StoredObject]  # published, of the version


def survey(
    stores: TileStores,
    tiles: Sequence[str],
    target: Target | None,
    version: int,
    cache: SurveyCache | None = None,
) -> list[TileState]:
    """Determine the states of many tiles, in their order; `target` None: no run has used the checkpoint yet.

    Takes one LIST for each tile's chips (each 1,000 of them), one LIST for the results of all tiles and one
    for the published files. A tile that is not in `cache`, which is updated, also takes one read of its
    results' footer and one of its published file's.

    Raises:
        StorageError: If a store refuses; there are no partial results.
    """
    states: SurveyCache = {} if cache is None else cache
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="survey") as pool:
        listing = pool.submit(_list_results, stores.work)
        published = published_files(stores.output, version)
        results = listing.result()

        def state_of(tile: str) -> TileState:
            chips = stores.chips.list(f"{tile}/")
            listed = _Listed(chips, results.get(tile, {}), published.get(tile, ()))
            digest = _digest(target, version, listed)
            cached = states.get(tile)  # once: another survey may replace it at any time
            if cached is not None and cached[0] == digest:
                return cached[1]
            try:
                state = _read_state(stores, tile, target, listed)
            except ObjectChanged:  # a run stored the tile since the listing: list it again, and cache nothing
                return _read_state(stores, tile, target, _listed_again(stores, tile, target, version, chips))
            # A file that is not current may only have been unreadable for a moment.
            if state.state != "unpublished" or not listed.files:
                states[tile] = digest, state
            return state

        return list(pool.map(state_of, tiles))  # at the first error the rest is cancelled


def orphaned_files(
    output: Store, manifest: Collection[str], empty: Collection[str]
) -> dict[str, list[StoredObject]]:
    """Find the published files, of any version, of tiles that are empty or outside of the manifest, by tile.

    Takes one listing. Only `clay prune --yes` removes such files.
    """
    published = published_files(output, None)
    return {tile: files for tile, files in published.items() if tile not in manifest or tile in empty}


def _list_results(work: Store) -> Mapping[str, Mapping[str, StoredObject]]:
    """List the results files of each tile, by the name of their folder, with one listing."""
    found: dict[str, dict[str, StoredObject]] = defaultdict(dict)
    with suppress(FolderMissing):  # nothing was embedded yet
        for item in work.list(RESULTS_PREFIX):
            path = PurePosixPath(item.url)
            if path.suffix == ".parquet":
                found[path.stem][path.parent.name] = item
    return found


def _listed_again(
    stores: TileStores, tile: str, target: Target | None, version: int, chips: Sequence[StoredObject]
) -> _Listed:
    """List again what exists of one tile, besides its chips."""
    results: dict[str, StoredObject] = {}
    for fingerprint in target.fingerprints if target else ():
        with suppress(ObjectMissing):
            results[fingerprint.folder] = stores.work.stat(results_key(tile, fingerprint))
    return _Listed(chips, results, published_files(stores.output, version, tile).get(tile, ()))


def _digest(target: Target | None, version: int, listed: _Listed) -> str:
    """Hash everything that a tile's state depends on."""
    lines = [repr((target, version, READER_VERSION, FORMAT_VERSION))]
    for objects in (listed.chips, listed.results.values(), listed.files):
        lines += [f"{item.url}\t{item.size}\t{item.etag}" for item in objects] + [""]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _read_state(stores: TileStores, tile: str, target: Target | None, listed: _Listed) -> TileState:
    chips = inventory_of(listed.chips).chips
    size = sum(chip.size for chip in chips)
    new = TileState(tile, "new", len(chips), size, len(chips), size, chips_digest(tile, chips))
    if not chips:
        return replace(new, state="empty")
    accepted = {made.folder: made for made in (target.fingerprints if target else ())}
    # Exactly as they were listed: `ObjectChanged` if a run has replaced them since.
    files = [(made, listed.results[folder]) for folder, made in accepted.items() if folder in listed.results]
    opened = (TileResults.open(stores.work, tile, made, file) for made, file in files)
    results = next((found for found in opened if found), None)
    if results is None or target is None:
        others = sorted(set(listed.results) - set(accepted))
        return replace(new, state="stale", detail=f"embedded as {', '.join(others)}") if others else new
    with results:
        header = results.header
        summary, provenance = header.summary, header.provenance
        seen = replace(new, inputs=inputs_of(provenance.fingerprint, header.digest, chips))
        if summary.encoded and summary.seconds > 0:
            rate = Rate(summary.encoded, summary.seconds, provenance.model, provenance.device)
            seen = replace(seen, rate=rate)
        if not is_complete(tile, chips, header, max_nodata=target.max_nodata):
            try:
                found = compare(tile, chips, header, results.chips(), max_nodata=target.max_nodata)
            except DamagedFileError:  # a run embeds such a tile again
                return new
            todo, size = len(found.to_embed), sum(chip.size for chip in found.to_embed)
            return replace(seen, state="changed", to_embed=todo, to_embed_bytes=size, detail=found.why)
    done = replace(seen, to_embed=0, to_embed_bytes=0)
    if not summary.embedded:
        return replace(done, state="unusable", detail=summary.skipped[0]["detail"])
    if len(listed.files) == 1:  # two: a run was killed between storing the new one and removing the old
        with suppress(ObjectChanged, ObjectMissing):  # it is being replaced right now
            if made_from(stores.output, listed.files[0]) == done.inputs:
                return replace(done, state="current")
    return replace(done, state="unpublished")
