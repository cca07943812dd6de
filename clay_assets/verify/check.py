"""Finds the faults of many tiles and their published files: listings and footers, on request every row.

Two requests a tile: a LIST of its chips (one for each 1,000 of them) and a GET of its file's footer; in
addition two LISTs for each 1,000 published files. For a tile without a file, its results' footer instead.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from io import BytesIO
from typing import Literal, NamedTuple

import pyarrow.parquet as pq

from clay_assets.parquet import DAMAGE, damaged
from clay_assets.publishing.schema import provenance_in
from clay_assets.publishing.validation import footer_faults, validate
from clay_assets.publishing.versions import FORMAT_VERSION, inputs_of, published_files
from clay_assets.reading import scan
from clay_assets.results import Target, chip_key, chips_digest
from clay_assets.state.comparison import is_complete
from clay_assets.state.states import TileStores
from clay_assets.state.survey import orphaned_files
from clay_assets.storage import ObjectChanged, ObjectMissing, Store, StoredObject
from clay_assets.tiles.inventory import list_chips

WORKERS = 32  # for metadata: each waits for two small requests most of the time; rows take a core each

Kind = Literal[
    "missing tile",
    "missing chips",
    "stale",
    "several files",
    "damaged",
    "orphaned",
    "mixed models",
    "other vectors",
]

KINDS: Mapping[Kind, str] = {
    "missing tile": "the tile has chips and no published file",
    "missing chips": "the file lacks chips of the bucket",
    "stale": "the file was made from other chips or with other settings",
    "several files": "the tile has more than one file of the version",
    "damaged": "the file cannot be read, or contradicts its own metadata",
    "orphaned": "the file's tile has no chips or is not in the manifest",
    "mixed models": "the version has files of several models, checkpoints or levels",
    "other vectors": "chips embedded again have other vectors than the file",
}


class Fault(NamedTuple):
    """A difference between the output and what it should be."""

    kind: Kind
    tile: str  # MGRS code; "" for a fault of the whole version
    what: str  # the value found and the value expected
    url: str = ""  # of the file; "" for a fault without a single file


class CheckedFile(NamedTuple):
    """A published file."""

    object: StoredObject
    provenance: Mapping[str, str]  # names without their prefix; empty if the file cannot be read
    rows: int

    def number(self, name: str) -> int:
        """Return a number of the provenance; 0 if it is missing."""
        text = self.provenance.get(name, "")
        return int(text) if text.isdecimal() else 0


class CheckedTile(NamedTuple):
    """A tile of the manifest."""

    tile: str  # MGRS code
    chips: Sequence[StoredObject]
    files: Sequence[CheckedFile] = ()  # of the version; not read if the bucket has no chips
    faults: Sequence[Fault] = ()
    unusable: bool = False  # none of the chips can be embedded


def check(
    stores: TileStores, tiles: Sequence[str], target: Target, version: int, *, deep: bool
) -> tuple[list[CheckedTile], list[Fault]]:
    """Check tiles and the published files of a version, with `deep` every row of them.

    Returns the tiles, in their order, and all faults: those of each tile, then orphaned files of any version,
    then mixed models. Raises StorageError if a store refuses: there is no partial answer.
    """
    published = published_files(stores.output, version)

    def checked(tile: str) -> CheckedTile:
        try:
            return _check_tile(stores, tile, published.get(tile, ()), target, deep)
        except (ObjectChanged, ObjectMissing):  # a run replaced the file after the listing
            files = published_files(stores.output, version, tile).get(tile, ())
            return _check_tile(stores, tile, files, target, deep)

    workers = scan.WORKERS if deep else WORKERS
    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        found = list(pool.map(checked, tiles))  # the first error cancels the rest
    faults = [fault for tile in found for fault in tile.faults]
    empty = {tile.tile for tile in found if not tile.chips}
    for tile, files in orphaned_files(stores.output, set(tiles), empty).items():
        faults += [Fault("orphaned", tile, "no chips, or not in the manifest", file.url) for file in files]
    kinds = [file.provenance for tile in found for file in tile.files if file.provenance]
    models = Counter(
        f"{kind.get('model')} {kind.get('level')} {kind.get('checkpoint_sha256', '')[:12]}" for kind in kinds
    )
    if len(models) > 1:
        named = ", ".join(f"{count:,} files of {model}" for model, count in models.most_common())
        what = f"{named}; expected one model: publish under another CLAY_VERSION"
        faults.append(Fault("mixed models", "", what))
    return found, faults


def _check_tile(
    stores: TileStores, tile: str, files: Sequence[StoredObject], target: Target, deep: bool
) -> CheckedTile:
    chips = list_chips(stores.chips, tile).chips
    if not chips:  # a file of such a tile is an orphan
        return CheckedTile(tile, chips)
    if not files:
        return _check_results(stores.work, tile, chips, target)
    faults = []
    if len(files) > 1:
        faults.append(Fault("several files", tile, f"{len(files)} files of one version, expected one"))
    checked = []
    for listed in files:
        file, damage, urls = _read(stores.output, listed, deep)
        checked.append(file)
        if damage:
            faults.append(Fault("damaged", tile, " ".join(damage), listed.url))
        if file.provenance:
            found = _differences(file, urls, tile, chips, target)
            faults += [Fault(kind, tile, what, listed.url) for kind, what in found]
    return CheckedTile(tile, chips, checked, faults)


def _check_results(work: Store, tile: str, chips: Sequence[StoredObject], target: Target) -> CheckedTile:
    """Say why a tile has no published file, by its results."""
    embedded = False
    results = target.results(work, tile)
    if results is not None:
        with results:
            header = results.header
        embedded = is_complete(tile, chips, header, max_nodata=target.max_nodata)
        if embedded and not header.summary.embedded:
            return CheckedTile(tile, chips, unusable=True)
    what = f"{len(chips):,} chips, {'embedded, not published' if embedded else 'not embedded'}"
    return CheckedTile(tile, chips, faults=[Fault("missing tile", tile, what)])


def _read(output: Store, listed: StoredObject, deep: bool) -> tuple[CheckedFile, list[str], set[str] | None]:
    """Return the file, the faults of its content, and, with `deep` and no faults, the URLs of its rows."""
    whole = deep and listed.size <= scan.WHOLE_BYTES
    with closing(BytesIO(output.read(listed)) if whole else output.open(listed)) as source:
        try:
            with pq.ParquetFile(source, pre_buffer=False) as parquet:
                rows, faults = parquet.metadata.num_rows, footer_faults(parquet)
                provenance = provenance_in(parquet.metadata)
        except DAMAGE as error:
            return CheckedFile(listed, {}, 0), [str(damaged(error))], None
        urls = None
        if deep and not faults:
            source.seek(0)
            faults = validate(source, name=listed.url.rpartition("/")[2])
            if not faults:
                source.seek(0)
                urls = set(pq.read_table(source, columns=["source_url"])["source_url"].to_pylist())
    return CheckedFile(listed, provenance, rows), faults, urls


def _differences(
    file: CheckedFile, urls: set[str] | None, tile: str, chips: Sequence[StoredObject], target: Target
) -> Iterator[tuple[Kind, str]]:
    """Yield how a file differs from the settings and the bucket; `urls` None if its rows were not read."""
    if differences := _other_settings(file.provenance, target):
        yield "stale", differences
        return
    listed, used = len(chips), file.number("chips")
    digest = chips_digest(tile, chips)
    inputs = {inputs_of(fingerprint, digest, chips) for fingerprint in target.fingerprints}
    if file.provenance.get("inputs") not in inputs:
        what = f"made from {used:,} chips, the bucket has {listed:,}"
        if used < listed:
            yield "missing chips", what
        else:
            yield "stale", f"{what}, or changed or moved ones"
        return
    expected = used - file.number("skipped")
    found, noun = (file.rows, "rows") if urls is None else (len(urls), "chips with rows")
    if found < expected:
        yield "missing chips", f"{found:,} {noun}, expected {expected:,}"
    keys = {chip_key(chip.url, tile) for chip in chips}
    if unlisted := sorted(url for url in urls or () if chip_key(url, tile) not in keys):
        yield "stale", f"{len(unlisted):,} chips with rows are not in the bucket, such as {unlisted[0]}"


def _other_settings(provenance: Mapping[str, str], target: Target) -> str:
    """Name the settings of a file that differ from the accepted ones, which may be of two precisions."""
    nearest = max(target.fingerprints, key=lambda one: one.precision == provenance.get("precision"))
    differences = [
        f"{name} is {provenance.get(name, 'unknown')[:12]}, expected {str(expected)[:12]}"
        for name, expected in asdict(nearest).items()
        if provenance.get(name) != str(expected)
    ]
    if not differences and provenance.get("format") != str(FORMAT_VERSION):
        return f"format is {provenance.get('format', 'unknown')}, expected {FORMAT_VERSION}"
    return "; ".join(differences)
