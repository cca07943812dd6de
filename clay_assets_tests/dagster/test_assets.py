"""The three assets on an instance in memory: what a run makes and records per tile, and when."""

import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from clay_assets.embedding.progress import Progress as EncoderProgress
from clay_assets.storage import AccessDenied, StoreDenied, StoredObject, TransferFailed
from clay_assets_tests.dagster.project import (
    ASSETS,
    TILE,
    TILES,
    Project,
    WideEmbedder,
    failure_of,
    message_of,
    plain,
)
from clay_assets_tests.embedding.scene import ChipStore
from clay_assets_tests.embedding.streaming import BROKEN, chip_of_value, number_of
from clay_assets_tests.embedding.streaming import TILES as MANY_TILES
from clay_assets_tests.geotiffs import chip_name

SIX = tuple(f"{tile}_20200615_20200615_v001.gpq" for tile in TILES)
"""The published files of all tiles."""


@pytest.fixture
def six(tmp_path: Path, instance: dg.DagsterInstance) -> Project:
    """A project of six tiles with two chips each."""
    project = Project(tmp_path, instance, TILES)
    project.put(*TILES)
    return project


def values(metadata: Mapping[str, dg.MetadataValue], *names: str) -> list[Any]:
    return [metadata[name].value for name in names]


def test_inventory_metadata_counts_chips_and_other_objects(project: Project) -> None:
    project.put(TILE, chips=[1, BROKEN])
    project.scene.chips.write(f"{TILE}/notes.txt", b"five!")

    assert project.run().success
    metadata = project.metadata("chip_inventory")

    assert values(metadata, "chips", "other objects", "dagster/row_count") == [2, 1, 2]
    assert metadata["bytes"].value == len(chip_of_value(1)) + len(BROKEN)
    assert metadata["dagster/uri"].value == str(project.root / "work" / "chip_inventory" / f"{TILE}.parquet")


def test_embeddings_metadata_has_counts_rates_and_reasons_of_skips(project: Project) -> None:
    project.put(TILE, chips=[1, BROKEN, 3])
    embedder = WideEmbedder(untrained=True)
    project.encoder = project.scene.encoder(embedder=embedder, allow_untrained=True)

    assert project.run().success
    metadata = project.metadata("chip_embeddings")

    numbers = ("chips", "embedded", "skipped", "chips encoded in this run", "dagster/row_count")
    assert values(metadata, *numbers) == [3, 2, 1, 2, 3]
    assert values(metadata, "windows", "no-data share") == [2, 0]
    assert metadata["bytes read"].value == len(chip_of_value(1)) + len(BROKEN) + len(chip_of_value(3))
    assert float(str(metadata["chips per second"].value)) > 0
    assert float(str(metadata["seconds"].value)) > 0
    assert values(metadata, "device", "level", "precision", "model") == [
        "cpu",
        "mean",
        "fp32",
        "clay-v0-tiny",
    ]
    assert metadata["untrained weights"].value is True
    assert len(str(metadata["checkpoint SHA-256"].value)) == 64
    skipped = metadata["skipped chips"]
    assert isinstance(skipped, dg.TableMetadataValue)
    assert [record.data["reason"] for record in skipped.records] == ["format"]
    assert str(skipped.records[0].data["source_url"]).endswith(chip_name(2))
    assert isinstance(metadata["picture"], dg.MarkdownMetadataValue)
    assert len(str(metadata["picture"].value)) < 30_000
    assert isinstance(metadata["map"], dg.UrlMetadataValue)
    schema = metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert [column.name for column in schema.columns][:3] == ["source_url", "etag", "size"]


def test_file_metadata_previews_the_first_rows(project: Project) -> None:
    project.put(TILE, chips=[1, BROKEN, 3])

    assert project.run().success
    metadata = project.metadata("embeddings_geoparquet")

    (published,) = (project.root / "output").iterdir()
    assert values(metadata, "rows", "dagster/row_count", "bytes") == [2, 2, published.stat().st_size]
    assert values(metadata, "first acquisition", "last acquisition") == ["2020-06-15", "2020-06-15"]
    assert values(metadata, "dagster/uri", "written in this run") == [str(published), True]
    preview = metadata["preview"]
    assert isinstance(preview, dg.TableMetadataValue)
    assert [str(record.data["source_url"])[-8:] for record in preview.records] == ["0001.tif", "0003.tif"]
    schema = metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert [column.name for column in schema.columns] == ["source_url", "date", "embeddings", "geometry"]


def test_a_tile_without_skips_has_an_empty_table(project: Project) -> None:
    project.put(TILE)

    assert project.run().success

    assert project.metadata("chip_embeddings")["skipped chips"].value is None


def test_a_current_tile_is_recorded_with_the_numbers_of_its_earlier_run(project: Project) -> None:
    project.put(TILE, chips=[1, BROKEN])
    assert project.run().success
    first = project.metadata("chip_embeddings")

    assert project.run().success
    again = project.metadata("chip_embeddings")

    assert values(again, "chips", "embedded", "skipped") == [2, 1, 1]
    assert values(again, "chips encoded in this run", "bytes read") == [0, 0]
    unchanged = set(first) - {"chips encoded in this run", "bytes read"}
    assert {name: again[name] for name in unchanged} == {name: first[name] for name in unchanged}
    assert project.metadata("embeddings_geoparquet")["written in this run"].value is False


def test_force_in_the_run_config_embeds_again(project: Project) -> None:
    project.put(TILE)
    assert project.run().success

    assert project.run({"force": True}).success

    assert project.metadata("chip_embeddings")["chips encoded in this run"].value == 2


def test_version_comes_from_the_settings_unless_the_run_config_names_one(project: Project) -> None:
    project.put(TILE)

    assert project.run(version=4).success
    assert project.run({"version": 12}, version=4).success
    assert project.run({"version": 0}, version=4).success

    assert project.published() == [
        f"{TILE}_20200615_20200615_v{version}.gpq" for version in ("000", "004", "012")
    ]


def test_a_checkpoint_that_changes_between_runs_is_detected(project: Project) -> None:
    project.put(TILE)
    assert project.run().success
    first = project.metadata("chip_embeddings")["checkpoint SHA-256"]
    (project.root / "checkpoint").write_bytes(b"trained for longer")

    assert project.run().success
    second = project.metadata("chip_embeddings")

    assert second["chips encoded in this run"].value == 2
    assert second["checkpoint SHA-256"] != first


def test_each_asset_can_be_materialized_alone(six: Project) -> None:
    made = {name: set[str]() for name in ASSETS}
    for asset in ASSETS:
        assert six.run(selection=[asset]).success
        made[asset] = set(TILES)
        assert {name: six.materialized(name) for name in ASSETS} == made
        assert len(six.published()) == (6 if asset == ASSETS[-1] else 0)
    assert six.published() == list(SIX)


def test_publishing_alone_requires_results_of_every_chip(six: Project) -> None:
    assert six.run(selection=ASSETS[:2]).success
    six.put("27WXN", chips=[1, 2, 3])
    assert six.run(selection=ASSETS[:1]).success

    result = six.run(selection=ASSETS[2:])

    assert message_of(result).startswith(
        "1 of 6 tiles failed; the other 5 are finished and recorded. 27WXN: Res"
    )
    assert six.published() == [name for name in SIX if not name.startswith("27WXN")]
    assert six.materialized("embeddings_geoparquet") == set(TILES) - {"27WXN"}


def test_embeddings_without_an_inventory_name_the_asset_to_materialize_first(project: Project) -> None:
    project.put(TILE)

    result = project.run(selection=["chip_embeddings"])

    assert "materialize chip_inventory first" in message_of(result)


def test_a_tile_is_recorded_and_published_while_the_next_one_is_embedded(six: Project) -> None:
    six.put("27WXP", chips=range(1, 9))
    recorded, seen = threading.Event(), list[tuple[dict[str, set[str]], list[str]]]()
    finished = {"27WXM", "27WXN"}

    def hold(target: StoredObject) -> None:
        """Delay the third tile's chips until the second tile is recorded; the last chip waits for that."""
        if "/27WXP/" in target.url:
            number = number_of(target)
            recorded.wait(60 if number == 8 else 0.5 * number)
            if number == 8:
                seen.append(({name: six.materialized(name) for name in ASSETS}, six.published()))

    def observe() -> None:
        while not recorded.wait(0.05):
            if six.materialized("embeddings_geoparquet") == finished:
                recorded.set()

    six.scene.chips.before = hold
    observer = threading.Thread(target=observe, daemon=True)
    observer.start()
    try:
        result = six.run()
    finally:
        recorded.set()
        observer.join()

    assert result.success
    assert seen == [(dict.fromkeys(ASSETS, finished), list(SIX[:2]))]
    for name in ASSETS:
        records = six.instance.fetch_materializations(dg.AssetKey(name), limit=100).records
        assert sorted(str(record.partition_key) for record in records) == sorted(TILES), "each exactly once"


class Denying(ChipStore):
    """Refuses to list one tile and fails to read another."""

    def __init__(self, uri: Path, listing: str = "none", reading: str = "none") -> None:
        super().__init__(uri)
        self._listing, self._reading = listing, reading

    def list(self, prefix: str = "") -> list[StoredObject]:
        """As `Store`, unless denied."""
        if prefix.startswith(self._listing):
            raise AccessDenied(f"{prefix}: denied")
        return super().list(prefix)

    def read(self, target: StoredObject | str) -> bytes:
        """As `Store`, unless broken."""
        assert isinstance(target, StoredObject)
        if f"/{self._reading}/" in target.url:
            raise TransferFailed(f"{target.url} broke")
        return super().read(target)


def test_failing_denied_and_empty_tiles_do_not_stop_the_others(six: Project) -> None:
    six.scene.chips = Denying(six.root / "chips", listing="27WXN", reading="27WXQ")
    shutil.rmtree(six.root / "chips" / "27WXP")
    shutil.rmtree(six.root / "chips" / "28WDS")
    six.put("28WDS", chips=[BROKEN])

    result = six.run()

    assert not result.success
    failed = {
        "27WXN": "AccessDenied: 27WXN/: denied",
        "27WXQ": "TransferFailed: ",
        "28WDS": "NoUsableChips: ",
    }
    rows = failure_of(result).metadata["failed_tiles"].records
    assert [row.data["tile"] for row in rows] == list(failed)
    assert all(str(row.data["error"]).startswith(failed[str(row.data["tile"])]) for row in rows)
    assert failure_of(result).metadata["finished"].value == 3
    assert message_of(result).startswith(
        "3 of 6 tiles failed; the other 3 are finished and recorded. 27WXN: "
    )
    assert six.published() == [SIX[0], SIX[5]]
    finished = dict.fromkeys(("27WXM", "27WXP", "28WDT"), "MATERIALIZED")
    for name in ASSETS[1:]:
        assert six.statuses(name) == finished | dict.fromkeys(failed, "FAILED")
    assert six.statuses("chip_inventory") == dict.fromkeys(TILES, "MATERIALIZED") | {"27WXN": "FAILED"}


def test_an_empty_tile_is_recorded_with_no_chips_and_a_warning(six: Project) -> None:
    shutil.rmtree(six.root / "chips" / "27WXP")

    result = six.run()

    assert result.success
    assert {name: six.materialized(name) for name in ASSETS} == {name: set(TILES) for name in ASSETS}
    for name in ASSETS:
        assert six.metadata(name, "27WXP")["chips"].value == 0
        assert six.metadata(name, "27WXP")["dagster/partition_row_count"].value == 0
    checks = six.checks(result)
    # All chips are in 27WXN's square, even those in another tile's folder.
    assert {name for name, check in checks.items() if not check.passed} == {
        "tile_has_chips",
        "geometry_inside_the_tile",
    }
    empty = checks["tile_has_chips"]
    assert empty.severity == dg.AssetCheckSeverity.WARN
    assert empty.description == "1 of 6 tiles: 27WXP"
    assert plain(empty)["bad tiles"] == [{"tile": "27WXP", "fault": "has no chips"}]
    assert plain(checks["every_chip_accounted_for"])["tiles checked"] == 5


def test_a_store_in_which_no_tile_has_a_folder_fails_at_once(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = Project(tmp_path, instance, TILES)
    project.scene.chips.write("logs/readme.txt", b"no tile")

    result = project.run()

    assert message_of(result).startswith(
        "stopped at tile 27WXM, because every other tile would fail the same way: NoTiles: no tile has a"
        f" folder under {tmp_path / 'chips'}: expected folders named by MGRS codes such as 27WXN. Check CLAY_"
    )
    assert project.statuses("chip_inventory") == dict.fromkeys(TILES, "FAILED")


def test_a_store_that_denies_listing_stops_the_run_before_all_tiles_are_listed(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    listed: list[str] = []

    class Refusing(ChipStore):
        def list(self, prefix: str = "") -> list[StoredObject]:
            listed.append(prefix)
            time.sleep(0.05)
            raise StoreDenied(f"s3://chips/{prefix}: denied")

    project = Project(tmp_path, instance, MANY_TILES)
    project.scene.chips = Refusing(tmp_path / "chips")

    result = project.run()

    assert message_of(result).startswith(f"stopped at tile {MANY_TILES[0]}, because every other tile would")
    assert len(listed) < len(MANY_TILES)


def test_failed_transfers_stop_the_run_only_if_the_store_cannot_be_listed(six: Project) -> None:
    class Breaking(Denying):
        def list(self, prefix: str = "") -> list[StoredObject]:
            if self.reads:  # from the first chip on
                raise TransferFailed(f"{prefix}: no server answered")
            return super().list(prefix)

    six.scene.chips = Breaking(six.root / "chips", reading="27WXN")

    result = six.run()

    assert message_of(result).startswith(
        "stopped at tile 27WXN, because every other tile would fail the same way"
    )
    assert six.published() == [SIX[0]]
    assert six.statuses("embeddings_geoparquet") == {
        tile: "MATERIALIZED" if tile == "27WXM" else "FAILED" for tile in TILES
    }


@pytest.mark.parametrize("with_an_asset_downstream", [False, True])
def test_an_interrupted_run_records_what_it_published(six: Project, with_an_asset_downstream: bool) -> None:
    class Interrupted(EncoderProgress):
        """Simulates a signal: raises in the run's thread, in the middle of the fourth tile."""

        def begin(self, tile: str) -> None:
            super().begin(tile)
            if tile == "27WXQ":
                raise DagsterExecutionInterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clay_assets.embedding.progress.Progress", Interrupted)
        result = six.run(others=[downstream_asset()] if with_an_asset_downstream else ())

    assert not result.success
    # The run waits for tiles that are being published; the third tile may be one of them.
    finished = {name[:5] for name in six.published()}
    assert {"27WXM"} <= finished <= set(TILES[:3])
    assert {name: six.materialized(name) for name in ASSETS} == dict.fromkeys(ASSETS, finished)
    assert {plain(check)["tiles checked"] for check in six.checks(result).values()} == {len(finished)}


def downstream_asset() -> dg.AssetsDefinition:
    """A user's asset that depends on the published files."""

    @dg.asset(
        deps=["embeddings_geoparquet"],
        partitions_def=dg.StaticPartitionsDefinition(TILES),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def index() -> dg.MaterializeResult:
        return dg.MaterializeResult()

    return index


def test_an_asset_downstream_in_the_same_run_is_materialized(six: Project) -> None:
    shutil.rmtree(six.root / "chips" / "27WXP")

    result = six.run(others=[downstream_asset()])

    assert result.success
    for name in (*ASSETS, "index"):
        records = six.instance.fetch_materializations(dg.AssetKey(name), limit=100).records
        assert sorted(str(record.partition_key) for record in records) == sorted(TILES), name
    assert six.metadata("chip_embeddings", "27WXN")["embedded"].value == 2
    assert six.metadata("chip_embeddings", "27WXP")["chips"].value == 0
