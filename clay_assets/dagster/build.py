"""`build_defs`: wires everything that Dagster loads.

Loading it imports no PyTorch, sends no request and needs neither data nor secrets.
https://docs.dagster.io/guides/build/projects/project-structure
"""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg

from clay_assets.dagster.assets import build_assets, build_embeddings_collection
from clay_assets.dagster.automation import build_automation
from clay_assets.dagster.resources import ClayEncoder, ObjectStore
from clay_assets.settings import ENCODER_FIELDS, Settings
from clay_assets.tiles.manifest import read_tiles

# Backfill policies are in beta since 1.5 and warn once per asset and process.
warnings.filterwarnings("ignore", category=dg.BetaWarning)


def build_resources(settings: Settings) -> dict[str, Any]:
    """Build the resources that the settings describe."""
    read = partial(ObjectStore, use_unsigned_session=settings.anonymous, request_payer=settings.request_payer)
    return {
        "chips": read(uri=settings.config("chips_uri")),
        "work": ObjectStore(uri=settings.config("work_uri")),
        "output": ObjectStore(uri=settings.config("output_uri")),
        "stac": ObjectStore(uri=settings.config("stac_uri")),
        "encoder": ClayEncoder(
            checkpoint=read(uri=settings.config("checkpoint")),
            **{name: settings.config(name) for name in ENCODER_FIELDS},
        ),
    }


def build_defs(
    *, resource_overrides: Mapping[str, Any] | None = None, settings: Settings | None = None
) -> dg.Definitions:
    """Wire the code location: assets, checks, automation, resources and the executor.

    Args:
        resource_overrides: Resources that replace those of the settings, by key: `chips`, `work`, `output`,
            `stac` (each an `ObjectStore`), `encoder` (a `ClayEncoder`).
        settings: Settings of the deployment; from the environment if omitted.

    Raises:
        ManifestError: If the manifest cannot be read.
        SettingsError: If a setting is invalid.
    """
    settings = settings or Settings.from_environment()
    tiles = read_tiles(settings.tiles)
    return dg.Definitions.merge(
        dg.Definitions(
            assets=[*build_assets(tiles, settings), build_embeddings_collection(settings)],
            resources={**build_resources(settings), **(resource_overrides or {})},
            # One process per run imports PyTorch and loads the network once.
            executor=dg.in_process_executor,
        ),
        build_automation(tiles, settings),
    )
