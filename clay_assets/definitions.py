"""The code location that Dagster loads: `dagster dev -m clay_assets.definitions`."""

from clay_assets.dagster import build_defs

defs = build_defs()
