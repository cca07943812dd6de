"""Publishes a tile: writes its embedded chips as one GeoParquet file."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from clay_assets.chips import ChipName
from clay_assets.publishing import versions
from clay_assets.publishing.schema import COLUMNS, PublishedName, published_schema
from clay_assets.publishing.versions import inputs_of, made_from, published_files
from clay_assets.publishing.writer import write_geoparquet
from clay_assets.results import ResultsHeader, Target, TileResults, chip_key, chips_digest, results_key
from clay_assets.results.outcomes import NoUsableChips
from clay_assets.storage import Store, StoredObject, temporary_errors
from clay_assets.tiles.inventory import read_inventory


class ResultsMissing(LookupError):
    """A tile's results are missing, unfinished, or of other chips than its inventory's."""


@dataclass(frozen=True)
class Published:
    """A published file."""

    url: str
    rows: int  # embeddings in it: one for each window of each embedded chip
    bytes: int
    first: date  # earliest acquisition
    last: date  # latest acquisition
    written: bool  # False if it already existed, made from the same inputs
    schema: pa.Schema
    head: list[dict[str, Any]]  # its first rows, without the vectors, for a preview
    inputs: str  # result of `inputs_of`
    picture: str = field(default="", repr=False)  # of the tile, as `results.picture` drew it
    energy: dict[str, Any] | None = None  # `emb:energy` of the run that embedded it, if it was measured


def publish_tile(work: Store, output: Store, tile: str, *, version: int, target: Target) -> Published:
    """Write the published file of a tile unless it exists and is current; return its description.

    The new file is stored before an earlier one of the same tile and version (which may have other dates, so
    another name) is removed: a reader always finds a whole file. Readers could not recognise a file that
    lacks chips, so no file is written unless each chip of the inventory has a result of `target`: never of
    another checkpoint or level.

    Raises:
        InventoryMissing: If the tile has no inventory.
        ResultsMissing: If the tile's chips have not been embedded, or not exactly those of its inventory.
        NoUsableChips: If no chip could be embedded.
        StorageError: If a store refuses.
    """
    listed = published_files(output, version, tile).get(tile, [])
    earlier = {PurePosixPath(file.url).name: file for file in listed}
    results = target.results(work, tile)
    if results is None:
        raise ResultsMissing(
            f"tile {tile} has no results of the checkpoint and level of the settings (such as"
            f" {work.url(results_key(tile, target.preferred))}): materialize chip_embeddings first"
        )
    with results:
        header, summary = results.header, results.header.summary
        if header.remaining:
            total = summary.chips + header.remaining
            raise ResultsMissing(
                f"tile {tile} has results for {summary.chips} of its {total} chips:"
                " materialize chip_embeddings to its end first"
            )
        inventory = read_inventory(work, tile)
        rows = results.columns(["source_url", "etag", "window", "date", "reason"]).to_pylist()
        present = {chip_key(chip.url, tile): chip.url for chip in inventory}
        for row in rows:  # the bucket may have moved since
            row["source_url"] = present.get(chip_key(row["source_url"], tile), row["source_url"])
        _account_for(inventory, rows, header, tile)
        embedded = [index for index, row in enumerate(rows) if row["reason"] is None]
        if not embedded:
            raise NoUsableChips(f"tile {tile}: none of its {summary.chips} chips could be embedded")
        order = sorted(embedded, key=lambda index: _place(rows[index]))
        chips = [rows[index] for index in order]
        first, last = chips[0]["date"], chips[-1]["date"]
        name = str(PublishedName(tile, first, last, version))
        inputs = inputs_of(header.provenance.fingerprint, header.digest, inventory)
        existing = earlier.pop(name, None)
        if existing is not None and made_from(output, existing) == inputs:
            size, written = existing.size, False
        else:
            tables = _tables(results, order, [row["source_url"] for row in chips])
            size, written = _write(output, name, tables, header, inputs), True
    for file in earlier.values():
        output.delete(file)
    return Published(
        url=output.url(name),
        rows=len(chips),
        bytes=size,
        first=first,
        last=last,
        written=written,
        schema=published_schema(header.provenance.shape),
        head=[{"source_url": row["source_url"], "date": str(row["date"])} for row in chips[:5]],
        inputs=inputs,
        picture=summary.picture,
        energy=summary.energy,
    )


def _account_for(
    inventory: Sequence[StoredObject], rows: Sequence[dict[str, Any]], header: ResultsHeader, tile: str
) -> None:
    """Refuse results unless there is one for each chip of the inventory in its present state."""
    expected = Counter((chip.url, chip.etag) for chip in inventory)
    got = Counter((row["source_url"], row["etag"]) for row in rows if row["window"] == 0)
    faults = {
        "chips of its inventory without a result": expected - got,
        "results of missing or changed chips": got - expected,
    }
    words = "; ".join(f"{odd.total()} {what}, such as {min(odd)[0]}" for what, odd in faults.items() if odd)
    if words:
        # A header with the digest of these chips would count as current, and nothing would be embedded.
        unchanged = header.digest == chips_digest(tile, inventory)
        how = "with the config `force: true`" if unchanged else "again"
        raise ResultsMissing(f"tile {tile} has {words}: materialize chip_embeddings {how}, then publish")


def _place(row: dict[str, Any]) -> tuple[date, int, str, int]:
    """Return what rows are ordered by: date, chip number and window."""
    return row["date"], ChipName.parse(row["source_url"]).number, row["source_url"], row["window"]


def _tables(results: TileResults, order: Sequence[int], urls: Iterable[str]) -> Iterator[pa.Table]:
    """Yield the published columns of the rows in this order, under these URLs."""
    urls = iter(urls)
    for table in results.take(order):
        column = pa.array(list(islice(urls, len(table))), pa.string())
        yield table.set_column(0, "source_url", column).select(COLUMNS)


def _write(output: Store, name: str, tables: Iterator[pa.Table], header: ResultsHeader, inputs: str) -> int:
    """Write and store the file; return its size in bytes."""
    made, fingerprint = header.provenance, header.provenance.fingerprint
    untrained = "untrained: random numbers, for trying the pipeline only"
    provenance = {
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
    with ExitStack() as stack:
        with temporary_errors():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clay-publish-"))
            path = Path(folder) / name
            write_geoparquet(path, tables, made.shape, provenance)
            size = path.stat().st_size
        output.put(name, path)
    return size
