"""The code location: everything Dagster loads, wired by one function.

Loading it imports no PyTorch, reaches no network and needs neither data nor secrets.
https://docs.dagster.io/guides/build/projects/project-structure
"""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

# Backfill policies are in beta since 1.5 and say so once per asset and process.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
# A backfill of the job goes by the smaller of the two policies, as it should.
warnings.filterwarnings("ignore", message="Asset job .* with varying BackfillPolicies")

from clay_assets.dagster.automation import Lookout, build_automation  # noqa: E402
from clay_assets.dagster.checks import build_checks  # noqa: E402
from clay_assets.dagster.chip_embeddings import build_chip_embeddings  # noqa: E402
from clay_assets.dagster.chip_inventory import build_chip_inventory  # noqa: E402
from clay_assets.dagster.embeddings_geoparquet import build_embeddings_geoparquet  # noqa: E402
from clay_assets.dagster.encoder import ClayEncoder  # noqa: E402
from clay_assets.dagster.object_store import ObjectStore  # noqa: E402
from clay_assets.settings import Settings  # noqa: E402
from clay_assets.storage import Store  # noqa: E402
from clay_assets.tiles.manifest import read_tiles  # noqa: E402
from clay_model.spec import PREPROCESSING_VERSION  # noqa: E402


def build_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The three assets, partitioned by the manifest's tiles.

    Args:
        settings: Of the deployment.

    Raises:
        ManifestError: If the manifest cannot be read.
        SettingsError: If a setting means nothing.
        Misconfigured: If the checkpoint's address is none, or holds credentials.
    """
    Store(settings.value("CLAY_CHECKPOINT"))  # refused here, before the code version shows it to everybody
    tiles = dg.StaticPartitionsDefinition(read_tiles(settings.manifest))
    level, precision = settings.value("CLAY_LEVEL"), settings.value("CLAY_PRECISION")
    code_version = f"{settings.checkpoint} {level} {precision} preprocessing {PREPROCESSING_VERSION}"
    inventory = build_chip_inventory(tiles, embed_policy(settings.tiles_per_run))
    embeddings = build_chip_embeddings(tiles, embed_policy(settings.tiles_per_run), code_version, inventory)
    geoparquet = build_embeddings_geoparquet(
        tiles, publish_policy(settings.tiles_per_run), settings.version, embeddings
    )
    return [inventory, embeddings, geoparquet]


def embed_policy(tiles_per_run: int) -> dg.BackfillPolicy:
    """How many tiles a backfill lists and embeds in one run; 0: all of them."""
    return dg.BackfillPolicy.multi_run(tiles_per_run) if tiles_per_run else dg.BackfillPolicy.single_run()


def publish_policy(tiles_per_run: int) -> dg.BackfillPolicy:
    """How many tiles a backfill publishes in a run: another number, so that Dagster keeps the runs apart."""
    return dg.BackfillPolicy.multi_run(tiles_per_run + 1) if tiles_per_run else dg.BackfillPolicy.single_run()


def build_resources(settings: Settings) -> dict[str, Any]:
    """The resources that the settings describe."""
    return {
        "chips": ObjectStore(uri=settings.config("CLAY_CHIPS_URI")),
        "work": ObjectStore(uri=settings.config("CLAY_WORK_URI")),
        "output": ObjectStore(uri=settings.config("CLAY_OUTPUT_URI")),
        "encoder": ClayEncoder(
            checkpoint=ObjectStore(uri=settings.config("CLAY_CHECKPOINT")),
            level=settings.config("CLAY_LEVEL"),
            precision=settings.config("CLAY_PRECISION"),
            device=settings.config("CLAY_DEVICE"),
            batch_size=settings.config("CLAY_BATCH_SIZE"),
        ),
    }


def build_defs(
    *, resource_overrides: Mapping[str, Any] | None = None, settings: Settings | None = None
) -> dg.Definitions:
    """Wire the code location.

    Args:
        resource_overrides: Resources to take instead of those the settings describe, by key: `chips`, `work`,
            `output` (each an `ObjectStore`), `encoder` (a `ClayEncoder`).
        settings: Of the deployment; from the environment if left out.

    Returns:
        Assets, checks, automation, resources and the executor.

    Raises:
        ManifestError: If the manifest cannot be read.
        SettingsError: If a setting means nothing.
        Misconfigured: If the checkpoint's address is none, or holds credentials.
    """
    settings = settings or Settings.from_environment()
    assets = build_assets(settings)
    tiles = read_tiles(settings.manifest)
    lookout = Lookout([asset.key for asset in assets], tiles, settings.version, settings.tiles_per_run)
    return dg.Definitions.merge(
        dg.Definitions(
            assets=assets,
            asset_checks=build_checks(tiles, settings.version),
            resources={**build_resources(settings), **(resource_overrides or {})},
            # One process for a run's steps: PyTorch is imported once and the network loaded once.
            executor=dg.in_process_executor,
        ),
        build_automation(lookout, assets),
    )


defs = build_defs()
