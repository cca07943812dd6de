"""`embeddings_collection` in a run of its own, on real folders."""

import json
from pathlib import Path

import dagster as dg

from clay_assets.dagster.collection import build_embeddings_collection
from clay_assets.dagster.resources import ObjectStore
from clay_assets_tests.reading.collection import CHIPS, write_collection


def test_asset_writes_the_collection_and_counts_what_it_holds(tmp_path: Path) -> None:
    write_collection(tmp_path / "embeddings")

    asset = build_embeddings_collection(1)
    config = {"ops": {"embeddings_collection": {"config": {"license": "CC-BY-4.0"}}}}
    done = dg.materialize(
        [asset],
        resources={
            "output": ObjectStore(uri=str(tmp_path / "embeddings")),
            "stac": ObjectStore(uri=str(tmp_path / "stac")),
        },
        run_config=config,
    )

    metadata = done.asset_materializations_for_node("embeddings_collection")[0].metadata
    assert metadata["tiles"].value == 2
    assert metadata["dagster/row_count"].value == 4 * CHIPS
    assert metadata["Items that were missing"].value == 2
    collection = json.loads((tmp_path / "stac" / "v001" / "collection.json").read_text())
    assert collection["license"] == "CC-BY-4.0"
    assert asset.partitions_def is None
