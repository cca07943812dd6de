import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from clay_assets.dagster import ObjectStore, build_defs
from clay_assets.dagster.assets import KEYS
from clay_assets.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]


def settings_with(tmp_path: Path, **variables: str) -> Settings:
    manifest = tmp_path / "tiles.txt"
    manifest.write_text("27WXN\n18HYB  # Chile\n")
    return Settings.from_environment({"CLAY_TILES": str(manifest), **variables})


def test_code_location_loads_without_torch_network_secrets_or_data(tmp_path: Path) -> None:
    (tmp_path / "tiles.txt").write_text("27WXN\n")
    script = """
import json, socket, sys
def refuse(*_): raise AssertionError("loading the code location opened a connection")
socket.socket.connect = refuse
from clay_assets.definitions import defs
import dagster
dagster.Definitions.validate_loadable(defs)
heavy = {"torch", "obstore", "s3fs", "pandas", "geopandas", "lancedb", "PIL", "scipy", "clay_assets.pipeline"}
print(json.dumps(sorted(set(sys.modules) & heavy)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_importing_build_defs_builds_nothing(tmp_path: Path) -> None:
    """There is no manifest here: building anything would fail."""
    script = "import sys, clay_assets.dagster as d; print(d.build_defs.__name__, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "build_defs False\n"), done.stderr


def test_asset_graph_is_chips_then_inventory_then_embeddings_then_geoparquet(tmp_path: Path) -> None:
    graph = build_defs(settings=settings_with(tmp_path)).resolve_asset_graph()
    nodes = {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}
    assert {
        name: sorted(parent.to_user_string() for parent in node.parent_keys) for name, node in nodes.items()
    } == {
        "chips": [],
        "chip_inventory": ["chips"],
        "chip_embeddings": ["chip_inventory"],
        "embeddings_geoparquet": ["chip_embeddings"],
        "embeddings_collection": ["embeddings_geoparquet"],
    }
    assert {name for name, node in nodes.items() if node.is_external} == {"chips"}
    assert {name: node.kinds for name, node in nodes.items()} == {
        "chips": {"s3"},
        "chip_inventory": {"s3"},
        "chip_embeddings": {"pytorch"},
        "embeddings_geoparquet": {"parquet"},
        "embeddings_collection": {"json", "parquet"},
    }
    made = [nodes[name] for name in nodes if name not in ("chips", "embeddings_collection")]
    assert {node.group_name for node in nodes.values()} == {"clay"}
    assert all(node.description for node in nodes.values())
    for node in made:
        assert node.partitions_def is not None
        assert node.partitions_def.get_partition_keys() == ["18HYB", "27WXN"]
    assert nodes["embeddings_collection"].partitions_def is None
    # One op makes the tiles' assets, and any of them alone.
    (assets,) = {node.assets_def for node in made}
    assert assets.can_subset
    assert assets.op.name == "tiles"


def test_assets_have_the_owners_of_the_setting(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, CLAY_OWNERS="team:earth, someone@example.org,")
    graph = build_defs(settings=settings).resolve_asset_graph()
    owners = {key.to_user_string(): list(graph.get(key).owners) for key in graph.get_all_asset_keys()}
    ours = ["team:earth", "someone@example.org"]
    assert owners == {
        "chips": [],
        "chip_inventory": ours,
        "chip_embeddings": ours,
        "embeddings_geoparquet": ours,
        "embeddings_collection": ours,
    }


@pytest.mark.parametrize(("tiles_per_run", "most"), [("64", 64), ("0", None)])
def test_a_run_of_a_backfill_has_as_many_tiles_as_the_setting(
    tmp_path: Path, tiles_per_run: str, most: int | None
) -> None:
    settings = settings_with(tmp_path, CLAY_TILES_PER_RUN=tiles_per_run)
    graph = build_defs(settings=settings).resolve_asset_graph()
    policies = {graph.get(key).backfill_policy for key in KEYS}
    assert policies == {dg.BackfillPolicy.multi_run(most) if most else dg.BackfillPolicy.single_run()}


def test_code_version_of_the_embeddings_changes_with_checkpoint_level_and_precision(tmp_path: Path) -> None:
    def versions(**variables: str) -> list[str | None]:
        graph = build_defs(settings=settings_with(tmp_path, **variables)).resolve_asset_graph()
        names = ("chip_inventory", "chip_embeddings", "embeddings_geoparquet")
        return [graph.get(dg.AssetKey(name)).code_version for name in names]

    usual = versions()
    for change in (
        {"CLAY_CHECKPOINT": "s3://bucket/other.ckpt"},
        {"CLAY_LEVEL": "patch"},
        {"CLAY_PRECISION": "fp32"},
    ):
        changed = versions(**change)
        assert changed[1] != usual[1]
        assert changed[::2] == usual[::2]
    assert versions(CLAY_VERSION="7", CLAY_DEVICE="cpu", CLAY_BATCH_SIZE="3") == usual


def test_resource_overrides_replace_settings(tmp_path: Path) -> None:
    chips = ObjectStore(uri="s3://public", use_unsigned_session=True)
    defs = build_defs(settings=settings_with(tmp_path), resource_overrides={"chips": chips})
    assert defs.resources is not None
    assert defs.resources["chips"] is chips
    assert defs.resources["output"].uri == "data/embeddings"


def test_variables_that_are_set_reach_resources_by_name(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, CLAY_CHIPS_URI="s3://bucket/chips")
    resources = build_defs(settings=settings).resources
    assert resources is not None
    assert resources["chips"].uri == dg.EnvVar("CLAY_CHIPS_URI")


def test_secrets_of_the_environment_are_not_sent_to_the_ui(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, f"secret-{name}")
    settings = settings_with(tmp_path, CLAY_CHIPS_URI="s3://bucket/chips")

    repository = build_defs(settings=settings).get_repository_def()
    sent = serialize_value(RepositorySnap.from_def(repository))

    assert "CLAY_CHIPS_URI" in sent, "the snapshot has no resource config"
    assert "secret-AWS" not in sent


def test_dg_check_defs_needs_no_flags() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dg"), "check", "defs"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All definitions loaded successfully" in done.stdout + done.stderr
