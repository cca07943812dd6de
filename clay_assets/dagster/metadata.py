"""Metadata for the Dagster UI: numbers, tables, pictures, links."""

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from clay_assets.results import ResultsHeader, chips_digest, results_key
from clay_assets.results.outcomes import results_schema
from clay_assets.storage import Store
from clay_assets.tiles.inventory import INVENTORY, Inventory, inventory_key

if TYPE_CHECKING:
    from clay_assets.pipeline import TileOutcome
    from clay_assets.publishing.publish import Published

MAX_ROWS = 200  # of a table in the event log; a tile has about 480 chips, all of which may be skipped


def table(rows: Sequence[Mapping[str, str | int | float]]) -> dg.MetadataValue:
    """Return a table of at most `MAX_ROWS` rows; null without rows, because Dagster's tables need one."""
    if not rows:
        return dg.MetadataValue.null()
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows[:MAX_ROWS]])


def inventory_metadata(tile: str, inventory: Inventory, work: Store) -> dict[str, Any]:
    """Return the metadata of a tile's `chip_inventory`."""
    return {
        "chips": len(inventory.chips),
        "bytes": sum(chip.size for chip in inventory.chips),
        "other objects": len(inventory.others),
        "chips digest": chips_digest(tile, inventory.chips),
        **_stored_table(
            len(inventory.chips),
            work.url(inventory_key(tile)),
            INVENTORY,
            source_url="full URL of the chip",
            size="bytes",
            etag="ETag of the object when it was listed",
        ),
    }


def embeddings_metadata(tile: str, header: ResultsHeader, work: Store, *, reused: bool) -> dict[str, Any]:
    """Return the metadata of a tile's `chip_embeddings`."""
    summary, provenance = header.summary, header.provenance
    return {
        "chips": summary.chips,
        "embedded": summary.embedded,
        "windows": summary.windows,
        "skipped": len(summary.skipped),
        "skipped chips": table(summary.skipped),
        "no-data share": round(summary.nodata, 4),
        "picture": dg.MetadataValue.md(summary.picture),
        "map": _map_link(*summary.bounds),
        "chips encoded in this run": 0 if reused else summary.encoded,
        "chips per second": round(summary.chips_per_second, 3),
        "seconds": round(summary.seconds, 3),
        "bytes read": 0 if reused else summary.bytes_read,
        "device": provenance.device,
        "host": socket.gethostname(),
        "level": provenance.fingerprint.level,
        "precision": provenance.fingerprint.precision,
        "model": provenance.model,
        "untrained weights": provenance.untrained,
        "checkpoint SHA-256": provenance.fingerprint.checkpoint_sha256,
        **_stored_table(
            summary.windows + len(summary.skipped),
            work.url(results_key(tile, provenance.fingerprint)),
            results_schema(provenance.width),
            embeddings=f"{' x '.join(map(str, provenance.shape))} numbers, row by row; null if skipped",
            geometry="WKB polygon in OGC:CRS84",
            nodata="share of the chip's pixels without data, 0 to 1",
            thumbnail="true colour, 16 x 16 RGB",
            reason="why the chip was skipped; null if it was embedded",
        ),
    }


def file_metadata(published: "Published") -> dict[str, Any]:
    """Return the metadata of a tile's `embeddings_geoparquet`."""
    return {
        "rows": published.rows,
        "bytes": published.bytes,
        "first acquisition": str(published.first),
        "last acquisition": str(published.last),
        "written in this run": published.written,
        "preview": table(published.head),
        **_stored_table(
            published.rows,
            published.url,
            published.schema,
            source_url="full URL of the chip",
            date="acquisition date",
            embeddings="embedding of the chip, float32",
            geometry="the chip's bounding box: WKB polygon in OGC:CRS84",
        ),
    }


def _stored_table(rows: int, url: str, schema: pa.Schema, **descriptions: str) -> dict[str, Any]:
    """Return Dagster's standard metadata of a table; `descriptions` are those of columns, by name."""
    columns = []
    for field in schema:
        constraints = dg.TableColumnConstraints(nullable=field.nullable)
        columns.append(dg.TableColumn(field.name, str(field.type), descriptions.get(field.name), constraints))
    return {
        "dagster/row_count": rows,
        "dagster/partition_row_count": rows,
        "dagster/uri": url,
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }


def _map_link(west: float, south: float, east: float, north: float) -> dg.MetadataValue:
    """Return a link to a map that shows a bounding box, in degrees of WGS 84."""
    east += 360 if east < west else 0  # across the antimeridian
    edges = f"minlon={west:.5f}&minlat={south:.5f}&maxlon={east:.5f}&maxlat={north:.5f}"
    return dg.MetadataValue.url(f"https://www.openstreetmap.org/?{edges}&box=yes")


def summarize(outcome: "TileOutcome") -> str:
    """Return one line about a tile for the run's log."""
    header, published, tile = outcome.results, outcome.published, f"tile {outcome.tile}"
    if outcome.empty:
        return f"{tile}: no chips"
    if header is None:
        return f"{tile}: {published.rows} rows" if published else f"{tile}: listed"
    summary = header.summary
    counts = f"{summary.embedded} embedded, {len(summary.skipped)} skipped"
    if outcome.reused:
        return f"{tile}: already current ({counts})"
    return (
        f"{tile}: {counts}; {summary.encoded} encoded now in {summary.seconds:.1f} s"
        f" ({summary.chips_per_second:.2f} chips/s on {header.provenance.device})"
    )
