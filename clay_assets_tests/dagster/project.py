"""A test project: chips in folders, the assets over some tiles, a Dagster instance, runs in this process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from torch import Tensor

from clay_assets.dagster import ClayEncoder, ObjectStore
from clay_assets.dagster.assets import build_assets
from clay_assets.embedding.checkpoint_cache import CheckpointFacts
from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.results import Target
from clay_assets.settings import Settings
from clay_assets.storage import Store
from clay_assets_tests.embedding.scene import Scene
from clay_assets_tests.embedding.streaming import MeanEmbedder, chip_of_value
from clay_assets_tests.geotiffs import chip_name
from clay_assets_tests.tile_scene import FINGERPRINT, target_of
from clay_model import Dimensions, Level
from clay_model.spec import SIZES

TILES = ("27WXM", "27WXN", "27WXP", "27WXQ", "28WDS", "28WDT")
"""Adjacent tiles in the order of a manifest."""

TILE = "27WXN"
ASSETS = ("chip_inventory", "chip_embeddings", "embeddings_geoparquet")

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def given_store(store: Store) -> ObjectStore:
    """A resource that returns the given store, for tests that instrument it."""

    class GivenStore(ObjectStore):
        def store(self) -> Store:
            return store

    return GivenStore(uri=store.uri)


def given_encoder(settings: EncoderSettings) -> ClayEncoder:
    """A resource that returns the given settings, such as a `MeanEncoder`."""

    class MeanEncoderResource(ClayEncoder):
        def settings(self) -> EncoderSettings:
            return settings

    return MeanEncoderResource(checkpoint=ObjectStore(uri=settings.checkpoint.uri))


class AlreadyEmbedded(EncoderSettings):
    """Settings that match the made-up results, so that nothing remains to be embedded."""

    def local_checkpoint(self) -> tuple[Path, CheckpointFacts]:
        """The checkpoint of the made-up results."""
        facts = CheckpointFacts("made up", "", 0, FINGERPRINT.checkpoint_sha256, FINGERPRINT.model, False)
        return Path("made up"), facts

    def target(self) -> Target:
        """The target of the made-up results."""
        return target_of()

    def known_target(self, work: Store) -> Target:  # noqa: ARG002
        """The target of the made-up results."""
        return target_of()


class WideEmbedder(MeanEmbedder):
    """A `MeanEmbedder` whose vectors are as wide as those of a `tiny` network, as the checks expect."""

    def __init__(self, *, untrained: bool = False) -> None:
        super().__init__(untrained=untrained)
        self.model_size = "tiny"

    @property
    def dimensions(self) -> Dimensions:
        """Of `tiny`."""
        return SIZES["tiny"]

    def encode(self, pixels: Tensor, places: Tensor, dates: Tensor, level: Level) -> Tensor:
        """The mean pixel, 256 times."""
        narrow = super().encode(pixels, places, dates, level)
        return narrow.repeat(1, self.dimensions.dim // narrow.shape[1])


class Project:
    """Chips in a folder, the assets over some tiles, an instance.

    Attributes:
        scene: The stores and the network.
        encoder: Encoder settings that the next run uses.
        resources: Resources that the next run uses.
    """

    def __init__(self, root: Path, instance: dg.DagsterInstance, tiles: Sequence[str] = (TILE,)) -> None:
        self.root = root
        self.instance = instance
        self.tiles = tiles
        self.scene = Scene(root)
        self.encoder: EncoderSettings = self.scene.encoder(embedder=WideEmbedder())
        (root / "chips").mkdir(exist_ok=True)

    @property
    def resources(self) -> dict[str, Any]:
        """The resources of a run."""
        stores = {name: getattr(self.scene, name) for name in ("chips", "work", "output")}
        stores["stac"] = Store(self.root / "stac")
        return {name: given_store(store) for name, store in stores.items()} | {
            "encoder": given_encoder(self.encoder)
        }

    def put(self, *tiles: str, chips: Sequence[int | bytes] = (1, 2)) -> None:
        """Store chips of tiles, numbered from 1: each is given by its pixels' value, or by its bytes."""
        for tile in tiles:
            for number, chip in enumerate(chips, start=1):
                data = chip_of_value(chip) if isinstance(chip, int) else chip
                self.scene.chips.write(f"{tile}/2020-06-15/{chip_name(number, tile=tile)}", data)

    def assets(self, *, version: int = 1) -> list[Any]:
        """The assets over the tiles."""
        variables = {"CLAY_TILES_PER_RUN": "0", "CLAY_VERSION": str(version)}
        return build_assets(self.tiles, Settings.from_environment(variables))

    def run(
        self,
        config: Mapping[str, Any] | None = None,
        selection: Sequence[str] | None = None,
        *,
        first: str = "",
        last: str = "",
        version: int = 1,
        others: Sequence[dg.AssetsDefinition] = (),
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets over a range of tiles, as a run of a backfill does.

        Args:
            config: Config of the op.
            selection: Names of assets; all if omitted.
            first: First tile; the manifest's first if omitted.
            last: Last tile; the manifest's last if omitted.
            version: Version of the published files in the settings.
            others: Further assets, such as a user's.
        """
        return dg.materialize(
            [*self.assets(version=version), *others],
            instance=self.instance,
            resources=self.resources,
            run_config={"ops": {"tiles": {"config": dict(config)}}} if config else None,
            selection=selection,
            tags=self._range(first, last),
            raise_on_error=False,
        )

    def check(
        self, first: str = "", last: str = "", *, config: Mapping[str, Any] | None = None
    ) -> dict[str, dg.AssetCheckEvaluation]:
        """Launch the checks on their own: over a range of tiles, or without partitions."""
        definitions = dg.Definitions(
            assets=self.assets(),
            jobs=[dg.define_asset_job("checks", selection=dg.AssetSelection.all_asset_checks())],
            resources=self.resources,
        )
        result = definitions.resolve_job_def("checks").execute_in_process(
            instance=self.instance,
            run_config={"ops": {"tiles": {"config": dict(config)}}} if config else None,
            tags=self._range(first, last) if first else None,
        )
        return self.checks(result)

    def checks(self, result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
        """The results of a run's checks by name, even if it failed; each check is evaluated once."""
        logs = self.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        found = [log.dagster_event.asset_check_evaluation_data for log in logs if log.dagster_event]
        assert len({check.check_name for check in found}) == len(found)
        return {check.check_name: check for check in found}

    def _range(self, first: str, last: str) -> dict[str, str]:
        return {RANGE_START: first or self.tiles[0], RANGE_END: last or first or self.tiles[-1]}

    def materialized(self, asset: str) -> set[str]:
        """Tiles with a materialization of an asset."""
        return self.instance.get_materialized_partitions(dg.AssetKey(asset))

    def statuses(self, asset: str) -> dict[str, str]:
        """The status of each requested tile, as the UI shows it."""
        found = self.instance.get_status_by_partition(
            dg.AssetKey(asset), self.tiles, dg.StaticPartitionsDefinition(self.tiles)
        )
        return {tile: status.value for tile, status in (found or {}).items() if status is not None}

    def metadata(self, asset: str, tile: str = TILE) -> dict[str, dg.MetadataValue]:
        """Metadata of a tile's latest materialization."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[tile]), limit=1
        ).records
        assert records, f"{asset} of {tile} was not materialized"
        event = records[0].asset_materialization
        assert event is not None
        return dict(event.metadata)

    def published(self) -> list[str]:
        """Names of the published files."""
        return sorted(path.name for path in (self.root / "output").glob("*"))


def plain(check: dg.AssetCheckEvaluation) -> dict[str, Any]:
    """A check's metadata, tables as dictionaries."""
    values: dict[str, Any] = {}
    for name, entry in check.metadata.items():
        is_table = isinstance(entry, dg.TableMetadataValue)
        values[name] = [dict(row.data) for row in entry.records] if is_table else entry.value  # type: ignore[attr-defined]
    return values


def message_of(result: dg.ExecuteInProcessResult) -> str:
    """The message of a run's failed step."""
    data = failure_of(result)
    assert data.description is not None
    return data.description


def failure_of(result: dg.ExecuteInProcessResult) -> Any:  # noqa: ANN401 - internal to Dagster
    """The `dg.Failure` that a run recorded."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    return data
