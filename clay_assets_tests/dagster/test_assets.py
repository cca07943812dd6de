"""The three assets on an instance in memory: what is recorded of each tile, what can be asked of a run."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clay_assets.dagster.encoder import ClayEncoder, SettingError
from clay_assets.dagster.object_store import ObjectStore
from clay_assets.definitions import build_assets
from clay_assets.embedding.checkpoint_cache import CheckpointChanged
from clay_assets.settings import Settings
from clay_assets.storage import Store, StoreDenied, StoredObject
from clay_assets_tests.embedding.scene import Scene
from clay_assets_tests.embedding.streaming import BROKEN, TILES, MeanEmbedder, chip_of_value
from clay_assets_tests.geotiffs import chip_name

TILE = "27WXN"
ASSETS = ("chip_inventory", "chip_embeddings", "embeddings_geoparquet")


class Project:
    """Chips in a folder, the assets over some tiles, an instance."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, tiles: list[str]) -> None:
        self.scene = Scene(root)
        self.root = root
        self.instance = instance
        self.tiles = tiles
        (root / "chips").mkdir()
        (root / "tiles.txt").write_text("\n".join(tiles))
        self.resources: dict[str, Any] = {
            name: ObjectStore(uri=str(root / name)) for name in ("chips", "work", "output")
        } | {"encoder": self.scene.encoder()}

    def run(
        self, config: Mapping[str, Any] | None = None, selection: Sequence[str] = ASSETS, **settings: str
    ) -> dg.ExecuteInProcessResult:
        """Materialize the selected assets for all tiles, as a backfill does in a run."""
        variables = {"CLAY_TILES": str(self.root / "tiles.txt"), "CLAY_TILES_PER_RUN": "0", **settings}
        return dg.materialize(
            build_assets(Settings.from_environment(variables)),
            instance=self.instance,
            resources=self.resources,
            run_config={"ops": dict(config)} if config else None,
            selection=selection,
            tags={
                "dagster/asset_partition_range_start": self.tiles[0],
                "dagster/asset_partition_range_end": self.tiles[-1],
            },
            raise_on_error=False,
        )

    def metadata(self, asset: str, tile: str = TILE) -> dict[str, dg.MetadataValue]:
        """Of a tile's latest materialization."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[tile]), limit=1
        ).records
        assert records, f"{asset} of {tile} was not materialized"
        event = records[0].asset_materialization
        assert event is not None
        return dict(event.metadata)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Project(tmp_path, instance, [TILE])


def plain(metadata: Mapping[str, dg.MetadataValue], *names: str) -> list[Any]:
    return [metadata[name].value for name in names]


def put(project: Project, chips: Mapping[int, bytes], tile: str = TILE) -> None:
    for number, data in chips.items():
        project.scene.chips.write(f"{tile}/2020-06-15/{chip_name(number, tile=tile)}", data)


def test_inventory_says_what_there_is(project: Project) -> None:
    put(project, {1: chip_of_value(1), 2: BROKEN})
    project.scene.chips.write(f"{TILE}/notes.txt", b"five!")

    assert project.run().success
    said = project.metadata("chip_inventory")

    assert plain(said, "chips", "other objects", "dagster/row_count") == [2, 1, 2]
    assert said["bytes"].value == len(chip_of_value(1)) + len(BROKEN)
    assert said["dagster/uri"].value == str(project.root / "work" / "chip_inventory" / f"{TILE}.parquet")


def test_embeddings_say_how_many_how_fast_and_why_not(project: Project) -> None:
    put(project, {1: chip_of_value(1), 2: BROKEN, 3: chip_of_value(3)})

    assert project.run().success
    said = project.metadata("chip_embeddings")

    numbers = ("chips", "embedded", "skipped", "chips encoded in this run", "dagster/row_count")
    assert plain(said, *numbers) == [3, 2, 1, 2, 3]
    assert said["bytes read"].value == len(chip_of_value(1)) + len(BROKEN) + len(chip_of_value(3))
    assert float(str(said["chips per second"].value)) > 0
    assert float(str(said["seconds"].value)) > 0
    assert plain(said, "device", "level", "precision", "model") == ["cpu", "mean", "fp32", "clay-v0-means"]
    assert said["untrained weights"].value is True
    assert len(str(said["checkpoint SHA-256"].value)) == 64
    skipped = said["skipped chips"]
    assert isinstance(skipped, dg.TableMetadataValue)
    assert [record.data["reason"] for record in skipped.records] == ["format"]
    assert str(skipped.records[0].data["source_url"]).endswith(chip_name(2))
    assert isinstance(said["picture"], dg.MarkdownMetadataValue)
    assert len(str(said["picture"].value)) < 30_000
    assert isinstance(said["map"], dg.UrlMetadataValue)
    schema = said["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert [column.name for column in schema.columns][:3] == ["source_url", "etag", "size"]


def test_published_file_is_described_with_its_first_rows(project: Project) -> None:
    put(project, {1: chip_of_value(1), 2: BROKEN, 3: chip_of_value(3)})

    assert project.run().success
    said = project.metadata("embeddings_geoparquet")

    (published,) = (project.root / "output").iterdir()
    assert plain(said, "rows", "dagster/row_count", "bytes") == [2, 2, published.stat().st_size]
    assert plain(said, "first acquisition", "last acquisition") == ["2020-06-15", "2020-06-15"]
    assert plain(said, "dagster/uri", "written in this run") == [str(published), True]
    preview = said["preview"]
    assert isinstance(preview, dg.TableMetadataValue)
    assert [str(record.data["source_url"])[-8:] for record in preview.records] == ["0001.tif", "0003.tif"]
    schema = said["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert [column.name for column in schema.columns] == ["source_url", "date", "embeddings", "geometry"]


def test_a_tile_without_skips_has_an_empty_table(project: Project) -> None:
    put(project, {1: chip_of_value(1)})

    assert project.run().success

    assert project.metadata("chip_embeddings")["skipped chips"].value is None


def test_a_current_tile_is_recorded_with_its_numbers_and_no_work(project: Project) -> None:
    put(project, {1: chip_of_value(1), 2: BROKEN})
    assert project.run().success
    first = project.metadata("chip_embeddings")

    assert project.run().success
    again = project.metadata("chip_embeddings")

    assert plain(again, "chips", "embedded", "skipped") == [2, 1, 1]
    assert plain(again, "chips encoded in this run", "bytes read") == [0, 0]
    unchanged = set(first) - {"chips encoded in this run", "bytes read"}
    assert {name: again[name] for name in unchanged} == {name: first[name] for name in unchanged}
    assert project.metadata("embeddings_geoparquet")["written in this run"].value is False


def test_a_run_that_publishes_refuses_the_tile_whose_chips_are_not_accounted_for(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        project = Project(tmp_path, instance, ["27WXM", "27WXN"])
        for tile in project.tiles:
            put(project, {1: chip_of_value(1)}, tile)
        assert project.run(selection=ASSETS[:2]).success
        put(project, {2: chip_of_value(2)}, "27WXM")
        assert project.run(selection=ASSETS[:1]).success

        published = project.run(selection=ASSETS[2:])

        assert not published.success
        names = [path.name for path in (tmp_path / "output").iterdir()]
        assert names == ["27WXN_20200615_20200615_v001.gpq"]
        done = instance.get_materialized_partitions(dg.AssetKey("embeddings_geoparquet"))
        assert done == {"27WXN"}


def test_a_range_with_empty_tiles_names_the_command_that_publishes_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        project = Project(tmp_path, instance, ["27WXM", "27WXN", "27WXP", "27WXQ"])
        put(project, {1: chip_of_value(1)}, "27WXQ")

        assert not project.run().success

        assert not (tmp_path / "output").exists()
        assert (
            "This run makes no embeddings_geoparquet, of no tile. To make it of the finished ones:\n"
            "CLAY_TILES_PER_RUN=0 dagster asset materialize -m clay_assets.definitions"
            " --select embeddings_geoparquet --partition-range 27WXM...27WXQ"
        ) in capfd.readouterr().err

        project.run(selection=ASSETS[2:])

        names = [path.name for path in (tmp_path / "output").iterdir()]
        assert names == ["27WXQ_20200615_20200615_v001.gpq"]


def test_a_run_that_does_not_publish_names_no_such_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        project = Project(tmp_path, instance, ["27WXM", "27WXN"])
        put(project, {1: chip_of_value(1)}, "27WXN")

        assert not project.run(selection=ASSETS[:2]).success

    assert "This run makes no" not in capfd.readouterr().err


def test_force_in_the_run_config_embeds_again(project: Project) -> None:
    put(project, {1: chip_of_value(1)})
    assert project.run().success

    assert project.run({"chip_embeddings": {"config": {"force": True}}}).success

    assert project.metadata("chip_embeddings")["chips encoded in this run"].value == 1


def test_version_comes_from_the_settings_unless_the_run_config_names_one(project: Project) -> None:
    put(project, {1: chip_of_value(1)})

    assert project.run(CLAY_VERSION="4").success
    assert project.run({"embeddings_geoparquet": {"config": {"version": 12}}}).success

    names = sorted(path.name for path in (project.root / "output").iterdir())
    assert names == ["27WXN_20200615_20200615_v004.gpq", "27WXN_20200615_20200615_v012.gpq"]


def test_a_checkpoint_that_changes_between_runs_is_noticed(project: Project) -> None:
    put(project, {1: chip_of_value(1)})
    assert project.run().success
    first = project.metadata("chip_embeddings")["checkpoint SHA-256"]
    (project.root / "checkpoint").write_bytes(b"trained for longer")

    assert project.run().success
    second = project.metadata("chip_embeddings")

    assert second["chips encoded in this run"].value == 1
    assert second["checkpoint SHA-256"] != first


def test_a_checkpoint_that_changes_while_a_run_begins_stops_it(tmp_path: Path, tiny_checkpoint: Path) -> None:
    encoder = ClayEncoder(
        checkpoint=ObjectStore(uri=str(tiny_checkpoint)), device="cpu", precision="fp32", cache=str(tmp_path)
    )
    planned = encoder.fingerprint()
    replaced = encoder.model_copy(update={"checkpoint": ObjectStore(uri=str(tmp_path / "other"))})
    (tmp_path / "other").write_bytes(b"other weights")

    with pytest.raises(CheckpointChanged, match=r"other was replaced while the run began: .* Run again"):
        replaced.embedders(planned)


def test_the_network_is_loaded_once_a_process(tmp_path: Path, tiny_checkpoint: Path) -> None:
    def encoder() -> ClayEncoder:
        checkpoint = ObjectStore(uri=str(tiny_checkpoint))
        return ClayEncoder(checkpoint=checkpoint, device="cpu,cpu", precision="fp32", cache=str(tmp_path))

    first, second = encoder(), encoder()
    embedders = first.embedders(first.fingerprint())

    assert second.embedders(second.fingerprint()) is embedders
    assert [embedder.model_size for embedder in embedders] == ["tiny", "tiny"]
    assert embedders[0] is not embedders[1]


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", ""])
def test_a_batch_size_that_is_none_is_refused(project: Project, value: str) -> None:
    with pytest.raises(SettingError, match=r"CLAY_BATCH_SIZE is .*, expected auto or a whole number from 1"):
        project.scene.encoder(batch_size=value).chips_per_batch([MeanEmbedder()])


def test_batch_size_is_as_set_or_what_suits_the_device(project: Project) -> None:
    assert project.scene.encoder(batch_size="7").chips_per_batch([MeanEmbedder()]) == 7
    assert project.scene.encoder(batch_size="auto").chips_per_batch([MeanEmbedder()]) == 1


def test_a_store_that_refuses_stops_the_inventory_before_all_tiles_were_asked_for(tmp_path: Path) -> None:
    asked: list[str] = []
    lock = threading.Lock()

    class Refusing(Store):
        def list(self, prefix: str = "") -> list[StoredObject]:
            with lock:
                asked.append(prefix)
            time.sleep(0.05)
            raise StoreDenied(f"s3://chips/{prefix}: denied")

    class RefusingStore(ObjectStore):
        def store(self) -> Store:
            return Refusing(tmp_path / "chips")

    with dg.DagsterInstance.ephemeral() as instance:
        project = Project(tmp_path, instance, TILES)
        project.resources["chips"] = RefusingStore(uri="s3://chips")
        result = project.run()

    assert not result.success
    assert len(asked) < len(TILES)
