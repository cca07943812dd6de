"""The asset `embeddings_geoparquet`: the file of a tile that people read.

Only what Dagster has to do with it; the work and the format are in `clay_assets.publishing`.
https://docs.dagster.io/guides/build/assets/defining-assets
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from clay_assets.dagster.ledger import TileLedger
from clay_assets.dagster.metadata import column_schema, table
from clay_assets.dagster.object_store import ObjectStore

if TYPE_CHECKING:
    from clay_assets.publishing.publish import Published


class PublishConfig(dg.Config):
    """What can be asked of one run."""

    version: int | None = Field(
        default=None, ge=0, description="The published file's version; empty: as CLAY_VERSION says."
    )


def build_embeddings_geoparquet(
    tiles: dg.PartitionsDefinition,
    backfill_policy: dg.BackfillPolicy,
    version: int,
    embeddings: dg.AssetsDefinition,
) -> dg.AssetsDefinition:
    """Make the asset.

    Args:
        tiles: The partitions.
        backfill_policy: How many of them go into one run of a backfill. One of its own, unlike that of the
            other two assets: Dagster then packages, in runs of their own, the tiles that an unlucky run
            finished before it failed.
        version: Default of the published version.
        embeddings: The asset of chip embeddings.
    """

    @dg.asset(
        deps=[embeddings],
        partitions_def=tiles,
        backfill_policy=backfill_policy,
        group_name="clay",
        kinds={"parquet"},
        code_version="1",
    )
    def embeddings_geoparquet(
        context: dg.AssetExecutionContext, config: PublishConfig, work: ObjectStore, output: ObjectStore
    ) -> dg.MaterializeResult:
        """One GeoParquet 1.0.0 file a tile: source URL, date, embedding and footprint of each chip."""
        from clay_assets.publishing.publish import publish_tile

        chosen = version if config.version is None else config.version
        with TileLedger(context) as ledger:
            for tile in ledger.tiles:
                with ledger.tile(tile) as metadata:
                    published = publish_tile(work.store(), output.store(), tile, version=chosen)
                    metadata |= describe(published)
        return dg.MaterializeResult()

    return embeddings_geoparquet


def describe(published: "Published") -> Mapping[str, Any]:
    """Metadata of one tile's materialization."""
    return {
        "rows": published.rows,
        "bytes": published.bytes,
        "first acquisition": str(published.first),
        "last acquisition": str(published.last),
        "written in this run": published.written,
        "preview": table(published.head),
        "dagster/row_count": published.rows,
        "dagster/partition_row_count": published.rows,
        "dagster/uri": published.url,
        "dagster/column_schema": column_schema(
            published.schema,
            source_url="full URL of the chip",
            date="acquisition date",
            embeddings="of the chip, float32",
            geometry="the chip's bounding box: WKB polygon in OGC:CRS84",
        ),
    }
