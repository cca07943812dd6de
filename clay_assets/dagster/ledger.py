"""Each tile of a run is recorded for itself: what is finished stays finished when another tile fails.

Dagster records a run over many partitions as one step. The ledger makes of it one materialization a tile,
with the tile's own metadata, on success, on failure and on interruption alike; it rests on behaviour of
Dagster 1.13 that `test_ledger` pins.
https://docs.dagster.io/guides/build/partitions-and-backfills
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import dagster as dg

ALIKE_IN_A_ROW = 3
"""Tiles in a row that fail alike before the run stops: the cause is then not in the tiles."""


class TileLedger:
    """Keeps what became of each tile of a run. Use as a context manager around the loop over the tiles."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        """Begin a run's ledger.

        Args:
            context: Of the asset that is being materialized.

        Raises:
            dagster.Failure: If the run has no tiles: a range whose start lies after its end.
        """
        self.tiles: list[str] = list(context.partition_keys)
        if not self.tiles:
            raise dg.Failure(
                "the run selects no tiles: its partition range starts after its end in the manifest",
                allow_retries=False,
            )
        self._context = context
        self._provenance = _provenance(context)
        self._done: dict[str, Mapping[str, Any]] = {}
        self._failed: dict[str, str] = {}
        self._alike: list[str] = []

    def __enter__(self) -> Self:
        return self

    @contextmanager
    def tile(self, tile: str) -> Iterator[dict[str, Any]]:
        """Record one tile: its metadata if the block ends well, its error if it does not.

        A tile's error is kept and the run goes on, unless the error is systemic, or the third in a row of
        its kind: then it is raised. Errors with `concerns_one_tile` (no usable chips, no results) do not
        count towards the three: a stretch of sea at the head of a manifest would otherwise stop every run
        that begins there.

        Args:
            tile: MGRS code.

        Yields:
            The metadata of the tile's materialization, to be filled in.
        """
        metadata: dict[str, Any] = {}
        try:
            yield metadata
        except Exception as error:
            self._failed[tile] = f"{type(error).__name__}: {error}"
            self._context.log.error(f"tile {tile} failed: {self._failed[tile]}", exc_info=_is_a_bug(error))
            if getattr(error, "concerns_one_tile", False):
                return
            self._alike = [*self._alike, _kind(error, tile)]
            if getattr(error, "systemic", False):
                raise self._failure(
                    f"stopped at tile {tile}, because every other tile would fail the same way:"
                    f" {self._failed[tile]}"
                ) from error
            if len(self._alike) >= ALIKE_IN_A_ROW and len(set(self._alike[-ALIKE_IN_A_ROW:])) == 1:
                raise self._failure(
                    f"stopped at tile {tile}, the third in a row that failed alike: {self._failed[tile]}"
                ) from error
        else:
            self._done[tile] = metadata
            self._alike = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._failed:
            # The step succeeds, and Dagster itself writes one materialization a tile, with this metadata.
            for tile, metadata in self._done.items():
                self._context.add_asset_metadata(metadata, partition_key=tile)
            return
        # The step fails, and Dagster would record nothing: what is finished is recorded here.
        for tile, metadata in self._done.items():
            self._context.log_event(
                dg.AssetMaterialization(
                    self._context.asset_key, partition=tile, metadata=metadata, tags=self._provenance
                )
            )
        if error is None:
            raise self._failure(
                f"{len(self._failed)} of {len(self.tiles)} tiles failed; the other {len(self._done)} are"
                f" finished and recorded. {_list_of(self._failed)}"
            )

    def _failure(self, text: str) -> dg.Failure:
        table = [dg.TableRecord({"tile": tile, "error": error}) for tile, error in self._failed.items()]
        return dg.Failure(
            text + (_how_to_go_on(self._context, self.tiles) if self._done else ""),
            metadata={
                "failed_tiles": dg.MetadataValue.table(table) if table else dg.MetadataValue.null(),
                "finished": dg.MetadataValue.int(len(self._done)),
            },
            allow_retries=False,
        )


def _how_to_go_on(context: dg.AssetExecutionContext, tiles: Sequence[str]) -> str:
    """What Dagster skips in this run because the step fails, and how to make it of the finished tiles."""
    run = context.job_def.asset_layer
    skipped = run.get(context.asset_key).child_keys & run.selected_asset_keys
    if not skipped:
        return ""
    names = ",".join(sorted(key.to_user_string() for key in skipped))
    return (
        f"\nThis run makes no {names}, of no tile. To make it of the finished ones:\n"
        "CLAY_TILES_PER_RUN=0 dagster asset materialize -m clay_assets.definitions"
        f" --select {names} --partition-range {tiles[0]}...{tiles[-1]}"
    )


def _provenance(context: dg.AssetExecutionContext) -> dict[str, str]:
    """The tags by which Dagster tells fresh from stale, as it writes them itself when a step succeeds.

    Taken before the work begins: whatever comes upstream meanwhile then shows as new.
    """
    asset = context.assets_def
    code_version = asset.code_versions_by_key[context.asset_key] or context.run.run_id
    tags = {"dagster/code_version": code_version, "dagster/data_version": context.run.run_id}
    for key in asset.asset_deps[context.asset_key]:
        latest = context.instance.fetch_materializations(key, limit=1).records
        event = latest[0].asset_materialization if latest else None
        version = (event.tags or {}).get("dagster/data_version") if event else None
        name = key.to_user_string()
        tags[f"dagster/input_data_version/{name}"] = version or "INITIAL"
        tags[f"dagster/input_event_pointer/{name}"] = str(latest[0].storage_id) if latest else "NULL"
    return tags


def _is_a_bug(error: Exception) -> bool:
    """Whether a traceback helps: errors of ours are written for the reader, others are not."""
    return not type(error).__module__.startswith("clay_")


def _kind(error: Exception, tile: str) -> str:
    """An error without what differs from tile to tile: addresses, codes, numbers."""
    text = re.sub(r"(s3://|/)\S+", "<address>", str(error).replace(tile, "<tile>"))
    return f"{type(error).__name__}: {re.sub(r'[0-9]+', '#', text)}"


def _list_of(failed: Mapping[str, str]) -> str:
    shown = [f"{tile}: {text}" for tile, text in list(failed.items())[:5]]
    more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
    return "; ".join(shown) + more
