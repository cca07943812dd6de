"""`embeddings_collection`: in its own run and in the run of the tiles, on real folders."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clay_assets.dagster.assets import build_embeddings_collection
from clay_assets.dagster.resources import ObjectStore
from clay_assets.settings import Settings
from clay_assets_tests.dagster.project import ASSETS, Project
from clay_assets_tests.embedding.streaming import BROKEN
from clay_assets_tests.reading.collection import CHIPS, write_collection
from clay_assets_tests.stac.schemas import faults

TILES = ("27WXM", "27WXN")
NAMES = [f"{tile}_20200615_20200615_v001" for tile in TILES]
COLLECTION = "embeddings_collection"


@pytest.fixture
def two(tmp_path: Path, instance: dg.DagsterInstance) -> Project:
    """A project of two tiles, one of two chips and one of three."""
    project = Project(tmp_path, instance, TILES)
    project.put(TILES[0])
    project.put(TILES[1], chips=[1, 2, 3])
    return project


def read(project: Project, name: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads((project.root / "stac" / "v001" / name).read_text())


def items_of(project: Project) -> dict[str, int]:
    """Rows of each Item that the Collection links to, by its name."""
    links = [link["href"] for link in read(project, "collection.json")["links"] if link["rel"] == "item"]
    return {Path(href).stem: read(project, href)["properties"]["table:row_count"] for href in links}


def test_the_asset_writes_the_collection_and_counts_its_contents(tmp_path: Path) -> None:
    write_collection(tmp_path / "embeddings")

    asset = build_embeddings_collection(Settings())
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
    assert metadata["Items added"].value == 2
    collection = json.loads((tmp_path / "stac" / "v001" / "collection.json").read_text())
    assert collection["license"] == "CC-BY-4.0"
    assert asset.partitions_def is None


def test_an_item_is_written_with_each_tile_and_a_later_run_makes_one_collection_of_them(two: Project) -> None:
    assert two.run().success
    folder = two.root / "stac" / "v001"
    assert sorted(path.stem for path in (folder / "items").glob("*.json")) == NAMES
    assert sorted(path.stem for path in (folder / "items").glob("*.png")) == NAMES
    assert not (folder / "collection.json").exists()

    done = dg.materialize(
        [build_embeddings_collection(Settings())], instance=two.instance, resources=two.resources
    )

    metadata = done.asset_materializations_for_node(COLLECTION)[0].metadata
    assert (metadata["tiles"].value, metadata["dagster/row_count"].value) == (2, 5)
    assert metadata["Items added"].value == 0, "each was written with its tile"
    assert items_of(two) == dict(zip(NAMES, (2, 3), strict=True))
    assert faults(read(two, "collection.json"), "collection.json") == []


def test_a_run_of_tiles_and_collection_records_the_tiles_at_its_end(
    two: Project,
) -> None:
    result = two.run(others=[build_embeddings_collection(Settings())])

    assert result.success
    assert items_of(two) == dict(zip(NAMES, (2, 3), strict=True))
    made = [
        event.asset_key.to_user_string()
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key
    ]
    assert made == [name for name in ASSETS for _ in TILES] + [COLLECTION]
    for name in ASSETS:
        assert two.materialized(name) == set(TILES)
    assert two.metadata("chip_embeddings")["embedded"].value == 3


def test_a_failed_tile_skips_the_collection_and_the_other_tile_is_recorded(two: Project) -> None:
    two.put(TILES[1], chips=[BROKEN] * 3)

    result = two.run(others=[build_embeddings_collection(Settings())])

    assert not result.success
    assert two.materialized("embeddings_geoparquet") == {TILES[0]}
    assert not (two.root / "stac" / "v001" / "collection.json").exists()
