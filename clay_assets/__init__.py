"""Embeddings of satellite imagery: chips in, one GeoParquet file per MGRS tile out.

The public Python API, which does not import Dagster. Each name is imported when it is first used, so that
`import clay_assets` is fast. The Dagster code location is `clay_assets.definitions`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clay_assets.embed import EmbeddedTile, embed_tile
    from clay_assets.reading import read_embeddings
    from clay_assets.search.similar import similar

__all__ = ["EmbeddedTile", "embed_tile", "read_embeddings", "similar"]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any object of the module
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = {"read_embeddings": "reading", "similar": "search.similar"}.get(name, "embed")
    return getattr(import_module(f"{__name__}.{module}"), name)
