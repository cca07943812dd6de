"""The asset `embeddings_collection`: all published tiles as one STAC Collection.

Unpartitioned; built from footers and Items alone. Not here: the work (`clay_assets.stac`).
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
    """Fields of the Collection that do not follow from the files."""

    version: int | None = Field(
        default=None, ge=0, description="Version of the published files; empty: CLAY_VERSION."
    )
    license: str = Field(
        default="proprietary",
        description="SPDX identifier of the embeddings' licence, `proprietary` or `various`.",
    )
    description: str = Field(default="", description="Description in Markdown; empty: rows, tiles and model.")
    checkpoint: str = Field(default="", description="URL of the weights, if they are public.")


def build_embeddings_collection(version: int, owners: Sequence[str] = ()) -> dg.AssetsDefinition:
    """Build the asset.

    Args:
        version: Default of the published version.
        owners: Owners of the asset: e-mail addresses or `team:name`.
    """

    @dg.asset(
        deps=[GEOPARQUET],
        group_name="clay",
        kinds={"json", "parquet"},
        owners=owners,
        code_version="1",
        # Dagster's command line refuses a partition range if an asset of the selection has another policy.
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
    """Return the metadata of the materialization."""
    return {
        "tiles": done.items,
        "dagster/row_count": done.rows,
        "dagster/uri": done.url,
        "Items added": len(done.added),
    }
