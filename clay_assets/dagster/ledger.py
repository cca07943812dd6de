"""Records each tile of a run: one materialization per asset, as soon as the tile is done.

Dagster records a run over many partitions as one step. The ledger logs the materializations of each tile
itself, so that finished tiles stay recorded however the run ends. It relies on behavior of Dagster 1.13 that
`test_ledger` verifies.
https://docs.dagster.io/guides/build/partitions-and-backfills
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg


@dataclass(frozen=True)
class AssetRecord:
    """The materialization of one asset of a tile.

    Attributes:
        key: Asset key.
        metadata: For the UI.
        data_version: Changes if and only if the data change; downstream assets are then stale.
    """

    key: dg.AssetKey
    metadata: Mapping[str, Any]
    data_version: str


class TileLedger:
    """Records success or failure per tile; emits one materialization of each asset per finished tile."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        """Start the ledger of a run.

        Args:
            context: Context of the op that materializes the assets.

        Raises:
            dagster.Failure: If the run has no tiles: a range whose start is after its end.
        """
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
        self._live = not _downstream_in_run(context)

    def record(self, tile: str, records: Sequence[AssetRecord], error: Exception | None = None) -> None:
        """Record a tile.

        Args:
            tile: MGRS code.
            records: Records of the materialized assets, upstream first.
            error: The error that prevented the other materializations.
        """
        if error is None:
            self._finished[tile] = records
        else:
            self._failed[tile] = f"{type(error).__name__}: {error}"
            self._context.log.error(f"tile {tile} failed: {self._failed[tile]}", exc_info=_is_a_bug(error))
        if self._live or error is not None:
            self._log(tile, records)

    def results(self) -> Iterator[dg.MaterializeResult]:
        """End a run and yield the results of the op.

        Raises:
            dagster.Failure: If a tile failed; the others are recorded.
        """
        if self._failed:
            others = len(self._finished)
            raise self.failure(
                f"{len(self._failed)} of {len(self.tiles)} tiles failed; the other {others} are finished and"
                f" recorded. {_listed(self._failed)}"
            )
        if self._live:
            return
        keys = [spec.key for spec in self._context.assets_def.specs]
        for key in [key for key in keys if key in self._context.selected_asset_keys]:
            for tile, records in self._finished.items():
                for record in records:
                    if record.key == key:
                        self._context.add_asset_metadata(record.metadata, asset_key=key, partition_key=tile)
            yield dg.MaterializeResult(asset_key=key)

    def keep(self) -> None:
        """Record the finished tiles before the run raises."""
        if not self._live:
            for tile, records in self._finished.items():
                self._log(tile, records)

    def failure(self, text: str) -> dg.Failure:
        """Build the failure of the run, with a table of failed tiles; records the finished ones."""
        self.keep()
        rows = [dg.TableRecord({"tile": tile, "error": error}) for tile, error in self._failed.items()]
        return dg.Failure(
            text,
            metadata={
                "failed_tiles": dg.MetadataValue.table(rows) if rows else dg.MetadataValue.null(),
                "finished": dg.MetadataValue.int(len(self._finished)),
            },
            allow_retries=False,
        )

    def _log(self, tile: str, records: Sequence[AssetRecord]) -> None:
        for record in records:
            event = dg.AssetMaterialization(
                record.key,
                partition=tile,
                metadata=record.metadata,
                tags=_provenance(self._context, tile, record),
            )
            self._context.log_event(event)


def _downstream_in_run(context: dg.AssetExecutionContext) -> bool:
    """Return whether the run materializes an asset downstream of this op's assets."""
    graph = context.job_def.asset_layer
    own = context.selected_asset_keys
    return any((graph.get(key).child_keys & graph.selected_asset_keys) - own for key in own)


def _provenance(context: dg.AssetExecutionContext, tile: str, record: AssetRecord) -> dict[str, str]:
    """Return the tags from which Dagster derives staleness, as Dagster writes them when a step succeeds."""
    asset = context.assets_def
    tags = {
        "dagster/code_version": asset.code_versions_by_key[record.key] or context.run.run_id,
        "dagster/data_version": record.data_version,
    }
    for key in asset.asset_deps[record.key]:
        partitioned = key in asset.keys
        latest = context.instance.get_latest_data_version_record(
            key, is_source=not partitioned, partition_key=tile if partitioned else None
        )
        event = latest.asset_materialization if latest else None
        version = (event.tags or {}).get("dagster/data_version") if event else None
        name = key.to_user_string()
        tags[f"dagster/input_data_version/{name}"] = version or "INITIAL"
        tags[f"dagster/input_event_pointer/{name}"] = str(latest.storage_id) if latest else "NULL"
    return tags


def _is_a_bug(error: Exception) -> bool:
    """Return whether to log a traceback: this project's own errors need none."""
    return not type(error).__module__.startswith("clay_")


def _listed(failed: Mapping[str, str]) -> str:
    shown = [f"{tile}: {text}" for tile, text in list(failed.items())[:5]]
    more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
    return "; ".join(shown) + more
