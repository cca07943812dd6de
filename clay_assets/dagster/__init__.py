"""Everything that imports Dagster; the rest of the package works without it.

build.py       build_defs: wires the code location
assets.py      chip_inventory → chip_embeddings → embeddings_geoparquet: one op, tile by tile
ledger.py      records each tile as soon as it is done
checks.py      asset checks: names, severities, results
metadata.py    metadata for the UI
resources.py   object stores and the encoder, as configuration
automation.py  schedule, sensor and job; the runs that they request
"""

from clay_assets.dagster.build import build_defs
from clay_assets.dagster.resources import ClayEncoder, ObjectStore

__all__ = ["ClayEncoder", "ObjectStore", "build_defs"]
