"""Surveys tiles: the state of each from a few small requests, many tiles at once."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from clay_assets.chips import READER_VERSION
from clay_assets.parquet import DamagedFileError
from clay_assets.publishing.versions import FORMAT_VERSION, inputs_of, made_from, published_files
from clay_assets.results import RESULTS_PREFIX, ResultsHeader, TileResults, results_key
from clay_assets.results.fingerprint import chips_digest
from clay_assets.results.target import Target
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


def survey(
    stores: TileStores,
    tiles: Sequence[str],
    target: Target | None,
    version: int,
    cache: SurveyCache | None = None,
) -> list[TileState]:
    """Determine the states of many tiles.

    Takes one LIST for each tile's chips (each 1,000 of them), one LIST for the results of all tiles and one
    for the published files. A tile that is not in `cache` also takes one read of its results' footer and one
    of its published file's.

    Args:
        stores: Chips, work and published files.
        tiles: MGRS codes.
        target: Target settings; None: the checkpoint has not been used by any run yet.
        version: Version of the published files.
        cache: States of an earlier survey, updated by this one.

    Returns:
        The tiles' states, in the order given.

    Raises:
        StorageError: If a store refuses; there are no partial results.
    """
    cache = {} if cache is None else cache
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="survey") as pool:
        listing = pool.submit(list_results, stores.work)
        published = published_files(stores.output, version)
        results = listing.result()

        def state_of(tile: str) -> TileState:
            existing = _Existing(results.get(tile, {}), published.get(tile, ()))
            return _state(stores, tile, target, version, existing, cache)

        return list(pool.map(state_of, tiles))  # at the first error the rest is cancelled


def list_results(work: Store, prefix: str = RESULTS_PREFIX) -> Mapping[str, Mapping[str, StoredObject]]:
    """List the results files of each tile, by the name of their folder, with one listing."""
    found: dict[str, dict[str, StoredObject]] = defaultdict(dict)
    with suppress(FolderMissing):  # nothing was embedded yet
        for item in work.list(prefix):
            path = PurePosixPath(item.url)
            if path.suffix == ".parquet":
                found[path.stem][path.parent.name] = item
    return found


@dataclass(frozen=True)
class _Existing:
    """Stored output for a tile: results by their folder, and published files of the version."""

    results: Mapping[str, StoredObject]
    files: Sequence[StoredObject]


def _state(
    stores: TileStores,
    tile: str,
    target: Target | None,
    version: int,
    existing: _Existing,
    cache: SurveyCache,
) -> TileState:
    listed = stores.chips.list(f"{tile}/")
    digest = _digest(target, version, listed, existing)
    cached_digest, state = cache.get(tile, ("", None))
    if state is not None and cached_digest == digest:
        return state
    chips = inventory_of(listed).chips
    try:
        state = _read_state(stores, tile, target, chips, existing)
    except ObjectChanged:  # a run stored the tile since the listing: list it again, and cache nothing
        return _read_state(stores, tile, target, chips, _list_existing(stores, tile, target, version))
    # A file that is not current may only have been unreadable for a moment.
    if state.state != "unpublished" or not existing.files:
        cache[tile] = digest, state
    return state


def _list_existing(stores: TileStores, tile: str, target: Target | None, version: int) -> _Existing:
    """List again what exists of one tile."""
    keys = [results_key(tile, fingerprint) for fingerprint in (target.fingerprints if target else ())]
    listed = [list_results(stores.work, key).get(tile, {}) for key in keys]
    files = published_files(stores.output, version, tile).get(tile, ())
    return _Existing({folder: found for one in listed for folder, found in one.items()}, files)


def _digest(target: Target | None, version: int, listed: Sequence[StoredObject], existing: _Existing) -> str:
    """Hash everything that a tile's state depends on."""
    lines = [repr((target, version, READER_VERSION, FORMAT_VERSION))]
    for objects in (listed, existing.results.values(), existing.files):
        lines += [f"{item.url}\t{item.size}\t{item.etag}" for item in objects] + [""]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _read_state(
    stores: TileStores, tile: str, target: Target | None, chips: Sequence[StoredObject], existing: _Existing
) -> TileState:
    size = sum(chip.size for chip in chips)
    new = TileState(tile, "new", len(chips), size, len(chips), size, chips_digest(tile, chips))
    if not chips:
        return replace(new, state="empty")
    results = _open_results(stores.work, tile, target, existing) if target else None
    if results is None or target is None:
        accepted = {fingerprint.folder for fingerprint in target.fingerprints} if target else set()
        others = sorted(set(existing.results) - accepted)
        return replace(new, state="stale", detail=f"embedded as {', '.join(others)}") if others else new
    with results:
        header = results.header
        inputs = inputs_of(header.provenance.fingerprint, header.digest, chips)
        seen = replace(new, inputs=inputs, rate=_rate(header))
        if not is_complete(tile, chips, header, max_nodata=target.max_nodata):
            try:
                found = compare(tile, chips, header, results.chips(), max_nodata=target.max_nodata)
            except DamagedFileError:  # a run embeds such a tile again
                return new
            to_embed_bytes = sum(chip.size for chip in found.to_embed)
            return replace(
                seen,
                state="changed",
                to_embed=len(found.to_embed),
                to_embed_bytes=to_embed_bytes,
                detail=found.why,
            )
    done = replace(seen, to_embed=0, to_embed_bytes=0)
    if not header.summary.embedded:
        return replace(done, state="unusable", detail=header.summary.skipped[0]["detail"])
    if not _is_published(stores.output, existing.files, done.inputs):
        return replace(done, state="unpublished")
    return replace(done, state="current")


def _open_results(work: Store, tile: str, target: Target, existing: _Existing) -> TileResults | None:
    """Open the results that count as current, exactly as they were listed; return None if there are none."""
    for fingerprint in target.fingerprints:
        listed = existing.results.get(fingerprint.folder)
        if listed and (results := TileResults.open(work, tile, fingerprint, listed)):
            return results
    return None


def _rate(header: ResultsHeader) -> Rate | None:
    summary, provenance = header.summary, header.provenance
    if not summary.encoded or summary.seconds <= 0:
        return None
    return Rate(summary.encoded, summary.seconds, provenance.model, provenance.device)


def _is_published(output: Store, files: Sequence[StoredObject], inputs: str) -> bool:
    """Return whether exactly one file exists, made from the present results."""
    if len(files) != 1:  # two: a run was killed between storing the new one and removing the old
        return False
    try:
        return made_from(output, files[0]) == inputs
    except (ObjectChanged, ObjectMissing):  # it is being replaced right now
        return False
