import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from clay_assets.dagster.object_store import ObjectStore
from clay_assets.definitions import build_defs
from clay_assets.settings import Settings
from clay_assets.storage import Misconfigured
from clay_assets.tiles.manifest import ManifestError

PROJECT = Path(__file__).resolve().parents[2]


def settings_with(tmp_path: Path, **variables: str) -> Settings:
    manifest = tmp_path / "tiles.txt"
    manifest.write_text("27WXN\n18HYB  # Chile\n")
    return Settings.from_environment({"CLAY_TILES": str(manifest), **variables})


def test_code_location_loads_without_torch_network_secrets_or_data(tmp_path: Path) -> None:
    (tmp_path / "tiles.txt").write_text("27WXN\n")
    script = """
import json, socket, sys
def refuse(*_): raise AssertionError("loading the code location reached for the network")
socket.socket.connect = refuse
from clay_assets.definitions import defs
import dagster
dagster.Definitions.validate_loadable(defs)
print(json.dumps(sorted(set(sys.modules) & {"torch", "s3fs", "obstore", "boto3", "clay_model.encoder"})))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_asset_graph_is_inventory_then_embeddings_then_geoparquet(tmp_path: Path) -> None:
    graph = build_defs(settings=settings_with(tmp_path)).resolve_asset_graph()
    parents = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
        for key in graph.get_all_asset_keys()
    }
    assert parents == {
        "chip_inventory": [],
        "chip_embeddings": ["chip_inventory"],
        "embeddings_geoparquet": ["chip_embeddings"],
    }
    for key in graph.get_all_asset_keys():
        partitions = graph.get(key).partitions_def
        assert partitions is not None
        assert partitions.get_partition_keys() == ["18HYB", "27WXN"]


def test_geoparquet_has_a_backfill_policy_of_its_own_unless_one_run_takes_all(tmp_path: Path) -> None:
    for tiles_per_run, apart in (("64", True), ("0", False)):
        settings = settings_with(tmp_path, CLAY_TILES_PER_RUN=tiles_per_run)
        graph = build_defs(settings=settings).resolve_asset_graph()
        policies = [
            graph.get(dg.AssetKey(name)).backfill_policy
            for name in ("chip_inventory", "chip_embeddings", "embeddings_geoparquet")
        ]
        assert policies[0] == policies[1]
        assert (policies[2] != policies[0]) is apart


def test_resource_overrides_take_the_place_of_settings(tmp_path: Path) -> None:
    chips = ObjectStore(uri="s3://public", use_unsigned_session=True)
    defs = build_defs(settings=settings_with(tmp_path), resource_overrides={"chips": chips})
    assert defs.resources is not None
    assert defs.resources["chips"] is chips
    assert defs.resources["output"].uri == "data/embeddings"


def test_settings_that_are_set_reach_resources_by_their_names(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, CLAY_CHIPS_URI="s3://bucket/chips")
    resources = build_defs(settings=settings).resources
    assert resources is not None
    assert resources["chips"].uri == dg.EnvVar("CLAY_CHIPS_URI")


def test_secrets_of_the_environment_are_not_in_what_the_ui_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, f"secret-{name}")
    settings = settings_with(tmp_path, CLAY_CHIPS_URI="s3://bucket/chips")

    repository = build_defs(settings=settings).get_repository_def()
    told = serialize_value(RepositorySnap.from_def(repository))

    assert "CLAY_CHIPS_URI" in told, "this is not where resource config stands"
    assert "secret-AWS" not in told


def test_a_checkpoint_address_with_credentials_is_refused_before_the_code_version_shows_it(
    tmp_path: Path,
) -> None:
    settings = settings_with(tmp_path, CLAY_CHECKPOINT="s3://AKIAEXAMPLE:sec/ret@bucket/small.ckpt")

    with pytest.raises(Misconfigured, match="holds credentials") as raised:
        build_defs(settings=settings)

    assert "ret@" not in str(raised.value)


def test_manifest_with_a_bad_line_is_refused_with_its_number(tmp_path: Path) -> None:
    manifest = tmp_path / "mine.txt"
    manifest.write_text("27WXN\nReykjavik\n")
    with pytest.raises(
        ManifestError, match=r"mine.txt has 1 lines that are no MGRS tile.*\n.*line 2: 'Reykjavik'"
    ):
        build_defs(settings=Settings.from_environment({"CLAY_TILES": str(manifest)}))


def test_missing_manifest_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="clay tiles"):
        build_defs(settings=Settings.from_environment({"CLAY_TILES": str(tmp_path / "none.txt")}))


def test_an_unknown_setting_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="CLAY_TILE; there are .*CLAY_TILES"):
        Settings.from_environment({"CLAY_TILE": "tiles.txt"})


def test_definitions_validate_needs_no_flags() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dagster"), "definitions", "validate"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
