"""Embeddings of satellite imagery as Dagster assets, one partition per MGRS tile.

Reading chips, streaming them through the encoder, accounting for each, writing GeoParquet. How the network
works is `clay_model`'s business.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clay_assets.reading import read_embeddings
    from clay_assets.search.similar import similar

__version__ = "0.1.0"

__all__ = ["read_embeddings", "similar"]

_LAZY = {"read_embeddings": "clay_assets.reading", "similar": "clay_assets.search.similar"}
"""Public functions by their modules, imported when first asked for: `import clay_assets` stays fast."""


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
