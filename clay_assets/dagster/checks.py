"""Checks of what the assets made, apart from the assets: they read the stored objects again and judge them.

    chip_embeddings.py        accounted for, finite, plausible norms, no twins, not collapsed
    vectors.py                what a tile's vectors show
    vector_judges.py          what is good and what is bad about it, with the thresholds
    embeddings_geoparquet.py  readable and valid, inside the tile
    tile_bounds.py            where a tile lies, from its MGRS code
    verdict.py                what a check says of many tiles

A check covers all tiles of a run. A tile without results or without a file is named and not judged: the asset
itself failed on it. Not here: refusing bad chips or rows while they are made.
"""

from collections.abc import Sequence

import dagster as dg

from clay_assets.dagster.chip_embeddings_checks import build_chip_embeddings_checks
from clay_assets.dagster.embeddings_geoparquet_checks import build_embeddings_geoparquet_checks

__all__ = ["build_checks"]


def build_checks(manifest: Sequence[str], version: int) -> list[dg.AssetChecksDefinition]:
    """All checks.

    Args:
        manifest: All tiles.
        version: Of the published files.
    """
    return [build_chip_embeddings_checks(manifest), build_embeddings_geoparquet_checks(manifest, version)]
