"""See what there is: listings and footers of many tiles at once; on demand every row.

Two requests a tile: a LIST of its chips (each 1,000 of them) and a GET of its file's footer; beside these two
LISTs for each 1,000 published files. A tile without a file costs its results' footer instead.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pyarrow.parquet as pq

from clay_assets.parquet import DAMAGE, damaged
from clay_assets.publishing import validate
from clay_assets.publishing.footer import column_faults, geometry_entry, storage_faults
from clay_assets.publishing.publish import inputs_word, published_files
from clay_assets.publishing.schema import MEAN, PREFIX
from clay_assets.results.fingerprint import chip_key, chips_digest
from clay_assets.results.target import Target
from clay_assets.state.comparison import is_complete
from clay_assets.state.orphans import orphaned_files
from clay_assets.state.states import TileStores
from clay_assets.storage import ObjectChanged, ObjectMissing, Store, StoredObject
from clay_assets.tiles.inventory import list_chips
from clay_assets.verify.facts import FileFacts, TileFacts

WORKERS = 32
"""Tiles looked at a time: each takes two small requests, nearly all of it waiting."""


@dataclass(frozen=True)
class Gathered:
    """What was seen.

    Attributes:
        tiles: Of the manifest, in its order.
        orphans: Published files of tiles without chips or outside of the manifest, of any version, by tile.
    """

    tiles: Sequence[TileFacts]
    orphans: Mapping[str, Sequence[StoredObject]]


def gather(
    stores: TileStores, tiles: Sequence[str], target: Target, version: int, *, deep: bool = False
) -> Gathered:
    """Look at tiles.

    Args:
        stores: Chips, work and published files.
        tiles: MGRS codes.
        target: What the settings ask for.
        version: Of the published files.
        deep: Whether to read every row.

    Raises:
        StorageError: If a store refuses: nothing is said rather than half of it.
    """
    published = published_files(stores.output, version)

    def look(tile: str) -> TileFacts:
        try:
            return _look(stores, tile, target, published.get(tile, ()), deep=deep)
        except (ObjectChanged, ObjectMissing):  # a run replaced the file since it was listed
            files = published_files(stores.output, version, tile).get(tile, ())
            return _look(stores, tile, target, files, deep=deep)

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="verify") as pool:
        facts = list(pool.map(look, tiles))  # at the first error the rest is cancelled
    empty = {seen.tile for seen in facts if not seen.chips}
    return Gathered(facts, orphaned_files(stores.output, set(tiles), empty))


def _look(
    stores: TileStores, tile: str, target: Target, files: Sequence[StoredObject], *, deep: bool
) -> TileFacts:
    chips = list_chips(stores.chips, tile).chips
    digest = chips_digest(tile, chips)
    inputs = frozenset(inputs_word(fingerprint, digest, chips) for fingerprint in target.fingerprints)
    facts = TileFacts(tile, chips, inputs)
    if not chips:
        return facts
    if files:
        read = _read_rows if deep else _read_footer
        return replace(facts, files=[read(stores.output, tile, file, chips) for file in files])
    results = target.results(stores.work, tile)
    if results is None:
        return facts
    with results:
        header = results.header
        complete = is_complete(tile, chips, header, max_nodata=target.max_nodata)
    if complete and not header.summary.embedded:
        return replace(facts, unusable=header.summary.skipped[0]["detail"])
    return replace(facts, embedded=complete)


def _read_footer(output: Store, tile: str, file: StoredObject, chips: Sequence[StoredObject]) -> FileFacts:
    """A file without its rows."""
    del tile, chips
    try:
        with closing(output.open(file)) as source, pq.ParquetFile(source, pre_buffer=False) as parquet:
            metadata = parquet.metadata
            pairs = metadata.metadata or {}
            _, wrong_geo = geometry_entry(pairs)
            faults = [*column_faults(parquet.schema_arrow, None), *storage_faults(metadata), *wrong_geo]
            said = {key.decode(): value.decode() for key, value in pairs.items() if key != b"ARROW:schema"}
    except DAMAGE as error:
        return FileFacts(file, faults=[str(damaged(error))])
    made = {
        key.removeprefix(PREFIX): value
        for key, value in said.items()
        if key.startswith(PREFIX) and key != PREFIX + MEAN
    }
    return FileFacts(file, metadata.num_rows, made, faults)


def _read_rows(output: Store, tile: str, file: StoredObject, chips: Sequence[StoredObject]) -> FileFacts:
    """A file with its rows, each judged by itself and looked for in the bucket."""
    facts = _read_footer(output, tile, file, chips)
    if facts.faults:
        return facts
    with closing(output.open(file)) as source:
        faults = validate(source, name=PurePosixPath(file.url).name)
        if faults:
            return replace(facts, faults=faults)
        source.seek(0)
        urls = set(pq.read_table(source, columns=["source_url"])["source_url"].to_pylist())
    listed = {chip_key(chip.url, tile) for chip in chips}
    unknown = sorted(url for url in urls if chip_key(url, tile) not in listed)
    return replace(facts, distinct=len(urls), unknown=unknown)
