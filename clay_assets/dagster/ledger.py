"""Records each tile of a run: one materialization per asset, as soon as the tile is done.

Dagster records a run over many partitions as one step. The ledger logs the materializations of each tile
itself, so that finished tiles stay recorded however the run ends. It relies on behavior of Dagster 1.13 that
`test_ledger` verifies.
https://docs.dagster.io/guides/build/partitions-and-backfills
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import dagster as dg


class AssetRecord(NamedTuple):
    """The materialization of one asset of a tile."""

    key: dg.AssetKey
    metadata: Mapping[str, Any]  # for the UI
    data_version: str  # changes if and only if the data change; downstream assets are then stale


class TileLedger:
    """Records success or failure per tile; emits one materialization of each asset per finished tile."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self.tiles: list[str] = list(context.partition_keys)
        if not self.tiles:
            raise dg.Failure(
                "the run selects no tiles: its partition range starts after its end in the manifest",
                allow_retries=False,
            )
        self._context = context
        self._finished: dict[str, Sequence[AssetRecord]] = {}
        self._failed: dict[str, str] = {}
        # Dagster skips downstream assets of the same run unless this op yields results. If there are any, the
        # op yields, and Dagster writes the materializations when the op ends.
        graph, own = context.job_def.asset_layer, context.selected_asset_keys
        self._live = not any((graph.get(key).child_keys & graph.selected_asset_keys) - own for key in own)

    def record(self, tile: str, records: Sequence[AssetRecord], error: Exception | None = None) -> None:
        """Record a tile's materialized assets, upstream first, and the error that prevented the others."""
        if error is None:
            self._finished[tile] = records
        else:
            self._failed[tile] = f"{type(error).__name__}: {error}"
            is_a_bug = not type(error).__module__.startswith("clay_")  # our own errors need no traceback
            self._context.log.error(f"tile {tile} failed: {self._failed[tile]}", exc_info=is_a_bug)
        if self._live or error is not None:
            self._log(tile, records)

    def results(self) -> Iterator[dg.MaterializeResult]:
        """End a run: yield the results of the op, or raise a `dagster.Failure` if a tile failed."""
        if self._failed:
            count, others = len(self._failed), len(self._finished)
            listed = "; ".join(f"{tile}: {text}" for tile, text in list(self._failed.items())[:5])
            more = f"; and {count - 5} more" if count > 5 else ""
            raise self.failure(
                f"{count} of {len(self.tiles)} tiles failed; the other {others} are finished and recorded."
                f" {listed}{more}"
            )
        if self._live:
            return
        for tile, records in self._finished.items():
            for record in records:
                self._context.add_asset_metadata(record.metadata, asset_key=record.key, partition_key=tile)
        for spec in self._context.assets_def.specs:
            if spec.key in self._context.selected_asset_keys:
                yield dg.MaterializeResult(asset_key=spec.key)

    def keep(self) -> None:
        """Record the finished tiles before the run raises."""
        if not self._live:
            for tile, records in self._finished.items():
                self._log(tile, records)

    def failure(self, text: str) -> dg.Failure:
        """Build the failure of the run, with a table of failed tiles; records the finished ones."""
        self.keep()
        rows = [dg.TableRecord({"tile": tile, "error": error}) for tile, error in self._failed.items()]
        failed = dg.MetadataValue.table(rows) if rows else dg.MetadataValue.null()
        metadata = {"failed_tiles": failed, "finished": dg.MetadataValue.int(len(self._finished))}
        return dg.Failure(text, metadata=metadata, allow_retries=False)

    def _log(self, tile: str, records: Sequence[AssetRecord]) -> None:
        for record in records:
            tags = _provenance(self._context, tile, record)
            self._context.log_event(
                dg.AssetMaterialization(record.key, partition=tile, metadata=record.metadata, tags=tags)
            )


def _provenance(context: dg.AssetExecutionContext, tile: str, record: AssetRecord) -> dict[str, str]:
    """Return the tags from which Dagster derives staleness, as Dagster writes them when a step succeeds."""
    asset = context.assets_def
    tags = {
        "dagster/code_version": asset.code_versions_by_key[record.key] or context.run.run_id,
        "dagster/data_version": record.data_version,
    }
    for key in asset.asset_deps[record.key]:
        partitioned = key in asset.asset_deps  # also if the run does not materialize it
        latest = context.instance.get_latest_data_version_record(
            key, is_source=not partitioned, partition_key=tile if partitioned else None
        )
        event = latest.asset_materialization if latest else None
        version = (event.tags or {}).get("dagster/data_version") if event else None
        name = key.to_user_string()
        tags[f"dagster/input_data_version/{name}"] = version or "INITIAL"
        tags[f"dagster/input_event_pointer/{name}"] = str(latest.storage_id) if latest else "NULL"
    return tags
