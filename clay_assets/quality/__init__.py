"""The substance of the asset checks, without Dagster: stored objects → facts → faults."""
