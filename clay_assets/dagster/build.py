"""`build_defs`: everything Dagster loads, wired by one function.

Loading it imports no PyTorch, reaches no network and needs neither data nor secrets.
https://docs.dagster.io/guides/build/projects/project-structure
"""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from clay_assets.dagster.assets import KEYS, build_assets
from clay_assets.dagster.automation import ImageryMonitor, build_automation
from clay_assets.dagster.collection import build_embeddings_collection
from clay_assets.dagster.resources import ClayEncoder, ObjectStore
from clay_assets.settings import Settings
from clay_assets.storage import Store
from clay_assets.tiles.manifest import read_tiles

# Backfill policies are in beta since 1.5 and warn once per asset and process.
warnings.filterwarnings("ignore", category=dg.BetaWarning)


def build_resources(settings: Settings) -> dict[str, Any]:
    """The resources that the settings describe."""

    def read_only(name: str) -> ObjectStore:
        return ObjectStore(
            uri=settings.config(name),
            use_unsigned_session=settings.anonymous,
            request_payer=settings.request_payer,
        )

    return {
        "chips": read_only("CLAY_CHIPS_URI"),
        "work": ObjectStore(uri=settings.config("CLAY_WORK_URI")),
        "output": ObjectStore(uri=settings.config("CLAY_OUTPUT_URI")),
        "stac": ObjectStore(uri=settings.config("CLAY_STAC_URI")),
        "encoder": ClayEncoder(
            checkpoint=read_only("CLAY_CHECKPOINT"),
            level=settings.config("CLAY_LEVEL"),
            precision=settings.config("CLAY_PRECISION"),
            device=settings.config("CLAY_DEVICE"),
            batch_size=settings.config("CLAY_BATCH_SIZE"),
            max_nodata=settings.max_nodata,
            allow_untrained=settings.allow_untrained,
        ),
    }


def build_defs(
    *, resource_overrides: Mapping[str, Any] | None = None, settings: Settings | None = None
) -> dg.Definitions:
    """Wire the code location.

    Args:
        resource_overrides: Resources to take instead of those the settings describe, by key: `chips`, `work`,
            `output`, `stac` (each an `ObjectStore`), `encoder` (a `ClayEncoder`).
        settings: Of the deployment; from the environment if omitted.

    Returns:
        Assets, checks, automation, resources and the executor.

    Raises:
        ManifestError: If the manifest cannot be read.
        SettingsError: If a setting is invalid.
        Misconfigured: If the checkpoint's address is invalid, or holds credentials.
    """
    settings = settings or Settings.from_environment()
    Store(settings.value("CLAY_CHECKPOINT"))  # refused here, before the code version shows it to everybody
    settings.check()
    tiles = read_tiles(settings.manifest)
    level, precision = settings.value("CLAY_LEVEL") or "default", settings.value("CLAY_PRECISION")
    assets = build_assets(
        tiles,
        tiles_per_run=settings.tiles_per_run,
        code_version=f"{settings.checkpoint} {level} {precision}",
        version=settings.version,
        owners=settings.owners,
    )
    monitor = ImageryMonitor(KEYS, tiles, settings.manifest, settings.version, settings.tiles_per_run)
    return dg.Definitions.merge(
        dg.Definitions(
            assets=[*assets, build_embeddings_collection(settings.version, settings.owners)],
            resources={**build_resources(settings), **(resource_overrides or {})},
            # PyTorch is imported once and the network loaded once in a run's process.
            executor=dg.in_process_executor,
        ),
        build_automation(monitor),
    )
