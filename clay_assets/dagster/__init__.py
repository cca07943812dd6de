"""Everything that imports Dagster: assets, resources, checks, automation."""
