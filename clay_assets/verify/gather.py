"""Collects facts about many tiles at once: listings and footers, on request every row.

Two requests a tile: a LIST of its chips (one for each 1,000 of them) and a GET of its file's footer; in
addition two LISTs for each 1,000 published files. For a tile without a file, its results' footer instead.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import PurePosixPath

import pyarrow.parquet as pq

from clay_assets.parquet import DAMAGE, damaged
from clay_assets.publishing import validate
from clay_assets.publishing.footer import column_faults, geometry_entry, storage_faults
from clay_assets.publishing.schema import MEAN, PREFIX
from clay_assets.publishing.versions import inputs_of, published_files
from clay_assets.reading import scan
from clay_assets.results.fingerprint import chip_key, chips_digest
from clay_assets.results.target import Target
from clay_assets.state.comparison import is_complete
from clay_assets.state.orphans import orphaned_files
from clay_assets.state.states import TileStores
from clay_assets.storage import ObjectChanged, ObjectMissing, Store, StoredObject
from clay_assets.tiles.inventory import list_chips
from clay_assets.verify.faults import FileFacts, TileFacts

WORKERS = 32
"""Threads for metadata: each waits for two small requests most of the time. Rows take a core each."""


def gather(
    stores: TileStores, tiles: Sequence[str], target: Target, version: int, *, deep: bool = False
) -> tuple[list[TileFacts], dict[str, list[StoredObject]]]:
    """Collect the facts that `find_faults` needs.

    Args:
        stores: Chips, work and published files.
        tiles: MGRS codes.
        target: The settings' fingerprints.
        version: Version of the published files.
        deep: Whether to read every row.

    Returns:
        Facts about the tiles, in their order; published files, of any version, of tiles without chips or
        outside of the manifest, by tile.

    Raises:
        StorageError: A store refuses; there is no partial answer.
    """
    published = published_files(stores.output, version)

    def read(tile: str) -> TileFacts:
        try:
            return _tile_facts(stores, tile, target, published.get(tile, ()), deep=deep)
        except (ObjectChanged, ObjectMissing):  # a run replaced the file after the listing
            files = published_files(stores.output, version, tile).get(tile, ())
            return _tile_facts(stores, tile, target, files, deep=deep)

    workers = scan.WORKERS if deep else WORKERS
    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        facts = list(pool.map(read, tiles))  # the first error cancels the rest
    empty = {found.tile for found in facts if not found.chips}
    return facts, orphaned_files(stores.output, set(tiles), empty)


def _tile_facts(
    stores: TileStores, tile: str, target: Target, files: Sequence[StoredObject], *, deep: bool
) -> TileFacts:
    chips = list_chips(stores.chips, tile).chips
    if not chips:
        return TileFacts(tile, chips)
    if files:
        digest = chips_digest(tile, chips)
        inputs = frozenset(inputs_of(fingerprint, digest, chips) for fingerprint in target.fingerprints)
        keys = {chip_key(chip.url, tile) for chip in chips} if deep else None
        return TileFacts(
            tile, chips, inputs, [_file_facts(stores.output, tile, file, keys) for file in files]
        )
    results = target.results(stores.work, tile)
    if results is None:
        return TileFacts(tile, chips)
    with results:
        header = results.header
    complete = is_complete(tile, chips, header, max_nodata=target.max_nodata)
    if complete and not header.summary.embedded:
        return TileFacts(tile, chips, unusable=header.summary.skipped[0]["detail"])
    return TileFacts(tile, chips, embedded=complete)


def _file_facts(output: Store, tile: str, file: StoredObject, keys: set[str] | None) -> FileFacts:
    """Read a file's footer; with the keys of the bucket's chips, every row too."""
    whole = keys is not None and file.size <= scan.WHOLE_BYTES
    with closing(BytesIO(output.read(file)) if whole else output.open(file)) as source:
        try:
            with pq.ParquetFile(source, pre_buffer=False) as parquet:
                metadata, schema = parquet.metadata, parquet.schema_arrow
            pairs = metadata.metadata or {}
            faults = [*column_faults(schema, None), *storage_faults(metadata), *geometry_entry(pairs)[1]]
            provenance = {
                key.decode().removeprefix(PREFIX): value.decode()
                for key, value in pairs.items()
                if key.startswith(PREFIX.encode()) and key != (PREFIX + MEAN).encode()
            }
        except DAMAGE as error:
            return FileFacts(file, faults=[str(damaged(error))])
        facts = FileFacts(file, metadata.num_rows, provenance, faults)
        if keys is None or faults:
            return facts
        source.seek(0)
        faults = validate(source, name=PurePosixPath(file.url).name)
        if faults:
            return replace(facts, faults=faults)
        source.seek(0)
        urls = set(pq.read_table(source, columns=["source_url"])["source_url"].to_pylist())
    unlisted = sorted(url for url in urls if chip_key(url, tile) not in keys)
    return replace(facts, chips=len(urls), unlisted=unlisted)
