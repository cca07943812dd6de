"""The asset `embeddings_collection`: what has been published, as one STAC Collection.

Unpartitioned: it covers all tiles, from footers and Items alone. The work is in `clay_assets.stac`.
https://docs.dagster.io/guides/build/assets/defining-assets
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from clay_assets.dagster.assets import GEOPARQUET
from clay_assets.dagster.resources import ObjectStore

if TYPE_CHECKING:
    from clay_assets.stac.catalog import Catalogued


class CollectionConfig(dg.Config):
    """What a Collection says beside what its files say."""

    version: int | None = Field(
        default=None, ge=0, description="Of the published files; empty: as CLAY_VERSION says."
    )
    license: str = Field(
        default="proprietary",
        description="SPDX identifier of the embeddings' licence, `proprietary` or `various`.",
    )
    description: str = Field(default="", description="In Markdown; empty: rows, tiles and model.")
    checkpoint: str = Field(default="", description="URL of the weights, if others may have them.")


def build_embeddings_collection(version: int, owners: Sequence[str] = ()) -> dg.AssetsDefinition:
    """Make the asset.

    Args:
        version: Default of the published version.
        owners: Of the asset, as Dagster has them.
    """

    @dg.asset(
        deps=[GEOPARQUET],
        group_name="clay",
        kinds={"json", "parquet"},
        owners=owners,
        code_version="1",
        # Dagster's command line refuses a range of tiles with an asset of another policy in the selection.
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def embeddings_collection(
        config: CollectionConfig, output: ObjectStore, stac: ObjectStore
    ) -> dg.MaterializeResult:
        """A STAC Collection of all published tiles, its Items as a table, the model, the mean vector."""
        from clay_assets.stac.catalog import write_collection

        done = write_collection(
            output.store(),
            stac.store(),
            version=version if config.version is None else config.version,
            license=config.license,
            description=config.description,
            checkpoint=config.checkpoint,
        )
        return dg.MaterializeResult(metadata=describe(done))

    return embeddings_collection


def describe(done: "Catalogued") -> Mapping[str, Any]:
    """Metadata of the materialization."""
    return {
        "tiles": done.items,
        "dagster/row_count": done.rows,
        "dagster/uri": done.url,
        "Items that were missing": len(done.added),
    }
