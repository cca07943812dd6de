"""Publish a tile: its finished chips become the one GeoParquet file that people read.

The work of the asset `embeddings_geoparquet`, without Dagster. The format of the file is in `geoparquet`.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clay_assets.chips import ChipName
from clay_assets.parquet import DamagedFileError
from clay_assets.publishing import (
    parse_published_name,
    published_name,
    published_schema,
    read_provenance,
    write_geoparquet,
)
from clay_assets.results import ResultsHeader, TileResults, results_key
from clay_assets.results.fingerprint import Fingerprint, chip_key, chips_digest
from clay_assets.results.outcomes import NoUsableChips
from clay_assets.results.target import Target
from clay_assets.storage import FolderMissing, Store, StoredObject
from clay_assets.storage.temporary import temporary_errors
from clay_assets.tiles.inventory import read_inventory

FORMAT_VERSION = 2
"""Raised when the writer is corrected: files of an earlier version are then written anew."""


class ResultsMissing(LookupError):
    """A tile has no results to publish, unfinished ones, or those of other chips than its inventory's."""

    concerns_one_tile = True


@dataclass(frozen=True)
class Published:
    """A published file.

    Attributes:
        url: Where it is.
        rows: Embeddings in it: one for each window of each embedded chip.
        bytes: Its size.
        first: Earliest acquisition.
        last: Latest acquisition.
        written: False where the file was there already, made from the same chips in the same way.
        schema: Of its columns.
        head: Its first rows, without the vectors, for a preview.
        inputs: One word for all that its content depends on: `inputs_of` the results.
        picture: Of the tile, as `results.picture` drew it.
        energy: `emb:energy` of the run that embedded it; None where it was not measured.
    """

    url: str
    rows: int
    bytes: int
    first: date
    last: date
    written: bool
    schema: pa.Schema
    head: list[dict[str, Any]]
    inputs: str
    picture: str = field(default="", repr=False)
    energy: dict[str, Any] | None = None


def publish_tile(work: Store, output: Store, tile: str, *, version: int, target: Target) -> Published:
    """Write the published file of a tile, unless it exists and is current.

    The new file is stored before an earlier one of the same tile and version (which may have other dates, so
    another name) is removed: a reader always finds a whole file. A file that lacks chips would look like any
    other to its readers, so none is written unless each chip of the inventory has its result.

    Args:
        work: Store of results.
        output: Where published files go.
        tile: MGRS code.
        version: Of the published data, for the file's name.
        target: Which results are published: never those of another checkpoint or level.

    Returns:
        The file of the tile as it is now.

    Raises:
        InventoryMissing: If the tile has no inventory.
        ResultsMissing: If the tile's chips have not been embedded, or not exactly those of its inventory.
        NoUsableChips: If none of them could be.
        StorageError: If a store refuses.
    """
    earlier = published_files(output, version, tile).get(tile, [])
    results = target.results(work, tile)
    if results is None:
        wanted = work.url(results_key(tile, target.preferred))
        raise ResultsMissing(
            f"tile {tile} has no results of the checkpoint and level of the settings (such as {wanted}):"
            " materialize chip_embeddings first"
        )
    with results:
        header = results.header
        if header.remaining:
            raise ResultsMissing(
                f"tile {tile} has results for {header.summary.chips} of its"
                f" {header.summary.chips + header.remaining} chips:"
                " materialize chip_embeddings to its end first"
            )
        inventory = read_inventory(work, tile)
        narrow = _with_present_urls(
            results.columns(["source_url", "etag", "window", "date", "reason"]), inventory, tile
        )
        _account_for(inventory, narrow, header, tile)
        if not header.summary.embedded:
            raise NoUsableChips(f"tile {tile}: none of its {header.summary.chips} chips could be embedded")
        order = _published_order(narrow)
        dates = pc.min_max(narrow["date"]).as_py()
        name = published_name(tile, dates["min"], dates["max"], version)
        inputs = inputs_of(header, inventory)
        current = _current(output, earlier, name, inputs)
        if current is None:
            urls = narrow["source_url"].take(order)
            size = _write(results, order, urls, output, name, _provenance(header, inputs))
        else:
            size = current.size
    for file in earlier:
        if PurePosixPath(file.url).name != name:
            output.delete(file)
    return Published(
        url=output.url(name),
        rows=len(order),
        bytes=size,
        first=dates["min"],
        last=dates["max"],
        written=current is None,
        schema=published_schema(header.provenance.shape),
        head=[
            {"source_url": narrow["source_url"][row].as_py(), "date": str(narrow["date"][row].as_py())}
            for row in order[:5]
        ],
        inputs=inputs,
        picture=header.summary.picture,
        energy=header.summary.energy,
    )


def published_files(output: Store, version: int, tile: str = "") -> dict[str, list[StoredObject]]:
    """Files of a version that lie there, whatever their dates, by tile: from one listing.

    Args:
        output: Where published files go.
        version: Of the published data.
        tile: The only tile to look for; all where empty.

    Raises:
        StorageError: If the store cannot be listed.
    """
    try:
        found = output.list(f"{tile}_" if tile else "")
    except FolderMissing:  # nothing was published yet
        return {}
    files: dict[str, list[StoredObject]] = {}
    for file in found:
        name = parse_published_name(PurePosixPath(file.url).name)
        in_place = output.url(PurePosixPath(file.url).name) == file.url  # not in a folder below
        if in_place and name is not None and name.version == version and tile in ("", name.tile):
            files.setdefault(name.tile, []).append(file)
    return files


def _account_for(
    inventory: Sequence[StoredObject], narrow: pa.Table, header: ResultsHeader, tile: str
) -> None:
    """Refuse results other than one for each chip of the inventory in its present state."""
    wanted = Counter((chip.url, chip.etag) for chip in inventory)
    chips = narrow.filter(pc.equal(narrow["window"], 0))
    got = Counter(zip(chips["source_url"].to_pylist(), chips["etag"].to_pylist(), strict=True))
    faults = {
        "chips of its inventory without a result": wanted - got,
        "results of no chip there or of another state": got - wanted,
    }
    if not any(faults.values()):
        return
    told = "; ".join(
        f"{found.total()} {what}, such as {min(found)[0]}" for what, found in faults.items() if found
    )
    # Results that say they are of these chips would be taken for current ones.
    how = "with the config `force: true`" if header.digest == chips_digest(tile, inventory) else "again"
    raise ResultsMissing(f"tile {tile} has {told}: materialize chip_embeddings {how}, then publish")


def _published_order(narrow: pa.Table) -> list[int]:
    """Rows of embedded chips in the order of date, chip number, window."""
    rows = [row for row, reason in enumerate(narrow["reason"].to_pylist()) if reason is None]
    dates, urls = narrow["date"].to_pylist(), narrow["source_url"].to_pylist()
    numbers = {row: ChipName.parse(PurePosixPath(urls[row]).name).number for row in rows}
    windows = narrow["window"].to_pylist()
    return sorted(rows, key=lambda row: (dates[row], numbers[row], urls[row], windows[row]))


def inputs_of(header: ResultsHeader, inventory: Sequence[StoredObject]) -> str:
    """One word for all that a published file's content depends on; the file carries it as `inputs`.

    Args:
        header: Of the tile's results.
        inventory: Of the tile: the file names its chips by their present URLs.
    """
    return inputs_word(header.provenance.fingerprint, header.digest, inventory)


def inputs_word(fingerprint: Fingerprint, digest: str, inventory: Sequence[StoredObject]) -> str:
    """The same, of complete results with such a fingerprint and digest."""
    folder = inventory[0].url.rpartition("/")[0] if inventory else ""
    facts = (fingerprint.folder, digest, folder, str(FORMAT_VERSION))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def made_from(output: Store, file: StoredObject) -> str | None:
    """The `inputs` that a published file carries; None where it is no published file of ours.

    Raises:
        StorageError: If the file cannot be read, or is another one than was listed.
    """
    with closing(output.open(file)) as source:
        try:
            return read_provenance(source).get("inputs")
        except DamagedFileError:
            return None


def _current(output: Store, files: list[StoredObject], name: str, inputs: str) -> StoredObject | None:
    """The file of this name, if it was made from these inputs."""
    for file in files:
        if PurePosixPath(file.url).name == name:
            # Whatever else lies under this name is written over.
            return file if made_from(output, file) == inputs else None
    return None


def _provenance(header: ResultsHeader, inputs: str) -> dict[str, str]:
    making = header.provenance
    return {
        "model": making.model,
        "weights": "untrained: random numbers, for trying the pipeline only"
        if making.untrained
        else "as the checkpoint has them",
        "checkpoint_sha256": making.fingerprint.checkpoint_sha256,
        "level": making.fingerprint.level,
        "precision": making.fingerprint.precision,
        "preprocessing": str(making.fingerprint.preprocessing),
        "chips": str(header.summary.chips),
        "skipped": str(len(header.summary.skipped)),
        "inputs": inputs,
        "device": making.device,
        "format": str(FORMAT_VERSION),
        "software": making.software,
    }


def _with_present_urls(narrow: pa.Table, inventory: Sequence[StoredObject], tile: str) -> pa.Table:
    """The rows with their chips' URLs as listed now: the bucket may have moved since they were embedded."""
    present = {chip_key(chip.url, tile): chip.url for chip in inventory}
    urls = [present.get(chip_key(url, tile), url) for url in narrow["source_url"].to_pylist()]
    return narrow.set_column(0, "source_url", pa.array(urls, pa.string()))


def _write(
    results: TileResults,
    order: list[int],
    urls: pa.ChunkedArray,
    output: Store,
    name: str,
    provenance: dict[str, str],
) -> int:
    def rows() -> Iterator[pa.Table]:
        done = 0
        for table in results.take(order):
            named = table.set_column(0, "source_url", urls.slice(done, len(table)))
            done += len(table)
            yield named.select(["source_url", "date", "embeddings", "geometry"])

    with ExitStack() as stack:
        with temporary_errors():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clay-publish-"))
            path = Path(folder) / name
            summary = write_geoparquet(path, rows(), results.header.provenance.shape, provenance)
        output.put(name, path)
    return summary.bytes
