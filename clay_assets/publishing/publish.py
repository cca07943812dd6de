"""Publishes a tile: writes its embedded chips as one GeoParquet file."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clay_assets.chips import ChipName
from clay_assets.publishing import versions
from clay_assets.publishing.names import published_name
from clay_assets.publishing.schema import published_schema
from clay_assets.publishing.versions import inputs_of, made_from, published_files
from clay_assets.publishing.writer import write_geoparquet
from clay_assets.results import ResultsHeader, TileResults, results_key
from clay_assets.results.fingerprint import chip_key, chips_digest
from clay_assets.results.outcomes import NoUsableChips
from clay_assets.results.target import Target
from clay_assets.storage import Store, StoredObject, temporary_errors
from clay_assets.tiles.inventory import read_inventory


class ResultsMissing(LookupError):
    """A tile's results are missing, unfinished, or of other chips than its inventory's."""

    concerns_one_tile = True


@dataclass(frozen=True)
class Published:
    """A published file.

    Attributes:
        url: Its address.
        rows: Embeddings in it: one for each window of each embedded chip.
        bytes: Its size.
        first: Earliest acquisition.
        last: Latest acquisition.
        written: False if it already existed, made from the same inputs.
        schema: Schema of its columns.
        head: Its first rows, without the vectors, for a preview.
        inputs: Result of `inputs_of`.
        picture: Picture of the tile, as `results.picture` drew it.
        energy: `emb:energy` of the run that embedded it; None if it was not measured.
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
    """Write the published file of a tile unless it exists and is current; return its description.

    The new file is stored before an earlier one of the same tile and version (which may have other dates, so
    another name) is removed: a reader always finds a whole file. Readers could not recognise a file that
    lacks chips, so no file is written unless each chip of the inventory has a result.

    Args:
        work: Store of results.
        output: Store of published files.
        tile: MGRS code.
        version: Version of the published data, for the file's name.
        target: Which results are published: never those of another checkpoint or level.

    Raises:
        InventoryMissing: If the tile has no inventory.
        ResultsMissing: If the tile's chips have not been embedded, or not exactly those of its inventory.
        NoUsableChips: If no chip could be embedded.
        StorageError: If a store refuses.
    """
    earlier = published_files(output, version, tile).get(tile, [])
    results = target.results(work, tile)
    if results is None:
        raise ResultsMissing(
            f"tile {tile} has no results of the checkpoint and level of the settings (such as"
            f" {work.url(results_key(tile, target.preferred))}): materialize chip_embeddings first"
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
        rows = _with_present_urls(
            results.columns(["source_url", "etag", "window", "date", "reason"]), inventory, tile
        )
        _account_for(inventory, rows, header, tile)
        if not header.summary.embedded:
            raise NoUsableChips(f"tile {tile}: none of its {header.summary.chips} chips could be embedded")
        order = _published_order(rows)
        first, last = pc.min_max(rows["date"]).as_py().values()
        name = published_name(tile, first, last, version)
        inputs = inputs_of(header.provenance.fingerprint, header.digest, inventory)
        existing = next((file for file in earlier if PurePosixPath(file.url).name == name), None)
        if existing is not None and made_from(output, existing) != inputs:
            existing = None  # a file of this name is overwritten
        if existing is None:
            urls = rows["source_url"].take(order)
            size = _write(results, order, urls, output, name, _provenance(header, inputs))
        else:
            size = existing.size
    for file in earlier:
        if PurePosixPath(file.url).name != name:
            output.delete(file)
    head = rows.select(["source_url", "date"]).take(order[:5]).to_pylist()
    return Published(
        url=output.url(name),
        rows=len(order),
        bytes=size,
        first=first,
        last=last,
        written=existing is None,
        schema=published_schema(header.provenance.shape),
        head=[{"source_url": row["source_url"], "date": str(row["date"])} for row in head],
        inputs=inputs,
        picture=header.summary.picture,
        energy=header.summary.energy,
    )


def _with_present_urls(rows: pa.Table, inventory: Sequence[StoredObject], tile: str) -> pa.Table:
    """Give the rows the URLs of their chips as listed now: the bucket may have moved since."""
    present = {chip_key(chip.url, tile): chip.url for chip in inventory}
    urls = [present.get(chip_key(url, tile), url) for url in rows["source_url"].to_pylist()]
    return rows.set_column(0, "source_url", pa.array(urls, pa.string()))


def _account_for(inventory: Sequence[StoredObject], rows: pa.Table, header: ResultsHeader, tile: str) -> None:
    """Refuse results unless there is one for each chip of the inventory in its present state."""
    expected = Counter((chip.url, chip.etag) for chip in inventory)
    chips = rows.filter(pc.equal(rows["window"], 0))
    got = Counter(zip(chips["source_url"].to_pylist(), chips["etag"].to_pylist(), strict=True))
    faults = {
        "chips of its inventory without a result": expected - got,
        "results of missing or changed chips": got - expected,
    }
    if not any(faults.values()):
        return
    words = "; ".join(f"{odd.total()} {what}, such as {min(odd)[0]}" for what, odd in faults.items() if odd)
    # A header with the digest of these chips would count as current, and nothing would be embedded.
    how = "with the config `force: true`" if header.digest == chips_digest(tile, inventory) else "again"
    raise ResultsMissing(f"tile {tile} has {words}: materialize chip_embeddings {how}, then publish")


def _published_order(rows: pa.Table) -> list[int]:
    """Return the rows of embedded chips, ordered by date, chip number and window."""
    keys = {
        index: (
            row["date"],
            ChipName.parse(PurePosixPath(row["source_url"]).name).number,
            row["source_url"],
            row["window"],
        )
        for index, row in enumerate(rows.to_pylist())
        if row["reason"] is None
    }
    return sorted(keys, key=keys.__getitem__)


def _provenance(header: ResultsHeader, inputs: str) -> dict[str, str]:
    made, fingerprint = header.provenance, header.provenance.fingerprint
    untrained = "untrained: random numbers, for trying the pipeline only"
    return {
        "model": made.model,
        "weights": untrained if made.untrained else "as the checkpoint has them",
        "checkpoint_sha256": fingerprint.checkpoint_sha256,
        "level": fingerprint.level,
        "precision": fingerprint.precision,
        "preprocessing": str(fingerprint.preprocessing),
        "chips": str(header.summary.chips),
        "skipped": str(len(header.summary.skipped)),
        "inputs": inputs,
        "device": made.device,
        "format": str(versions.FORMAT_VERSION),
        "software": made.software,
    }


def _write(
    results: TileResults,
    order: Sequence[int],
    urls: pa.ChunkedArray,
    output: Store,
    name: str,
    provenance: dict[str, str],
) -> int:
    """Write the rows in this order, under these URLs, and store the file; return its size in bytes."""

    def tables() -> Iterator[pa.Table]:
        done = 0
        for table in results.take(order):
            named = table.set_column(0, "source_url", urls.slice(done, len(table)))
            done += len(table)
            yield named.select(["source_url", "date", "embeddings", "geometry"])

    with ExitStack() as stack:
        with temporary_errors():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clay-publish-"))
            path = Path(folder) / name
            write_geoparquet(path, tables(), results.header.provenance.shape, provenance)
            size = path.stat().st_size
        output.put(name, path)
    return size
