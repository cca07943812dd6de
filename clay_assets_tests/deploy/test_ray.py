"""`deploy/ray/`: the jobs that Dagster submits to Ray. `make cluster` runs a cluster."""

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._utils.env import environ

from clay_assets.settings import VARIABLES
from clay_assets_tests.deploy.job_servers import job_server, launch

pytest.importorskip("dagster_ray", reason="needs the extra `ray`")

SETTINGS = Path(__file__).resolve().parents[2] / "deploy" / "ray" / "dagster.yaml"
PASSWORD = "correct-horse"  # noqa: S105 - a value that must not appear
ENVIRONMENT = {
    "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://dagster:{PASSWORD}@127.0.0.1:1/dagster",
    "DAGSTER_LOGS_BUCKET": "logs",
    "AWS_SECRET_ACCESS_KEY": PASSWORD,
    "CLAY_CHIPS_URI": "s3://chips/prefix",
    "CLAY_TILES": "/tiles/tiles.txt",
    "CLAY_LEVEL": "",
}


def test_a_run_is_a_job_with_one_gpu_and_the_settings_but_no_secret(tmp_path: Path) -> None:
    version = {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}
    home = settings_with_a_local_database(tmp_path)
    with (
        job_server({"/api/version": version}, accepted={"job_id": "1", "submission_id": "1"}) as ray,
        environ({**ENVIRONMENT, "RAY_API_SERVER_ADDRESS": ray.url}),
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        run = launch(instance)

    (job,) = ray.jobs
    assert job["submission_id"] == f"dagster-run-{run.run_id}"
    assert job["entrypoint"].startswith("dagster api execute_run ")
    assert job["entrypoint_num_gpus"] == 1
    assert job["entrypoint_num_cpus"] == 4
    assert job["entrypoint_memory"] == 8 * 1024**3
    passed_on = job["runtime_env"]["env_vars"]
    assert passed_on == {
        "CLAY_CHIPS_URI": "s3://chips/prefix",
        "CLAY_TILES": "/tiles/tiles.txt",
        "DAGSTER_RUN_JOB_NAME": "__ASSET_JOB",
    }
    assert PASSWORD not in str(job)


def test_every_setting_is_passed_on(tmp_path: Path) -> None:
    assert set(part(tmp_path, "run_launcher_data")["ray"]["env_vars"]) == {
        name for name in VARIABLES if name.startswith("CLAY_")
    }


def test_every_node_finds_database_and_logs_by_its_environment(tmp_path: Path) -> None:
    assert part(tmp_path, "storage_data")["postgres_url"] == {"env": "DAGSTER_POSTGRES_URL"}
    assert part(tmp_path, "compute_logs_data")["bucket"] == {"env": "DAGSTER_LOGS_BUCKET"}


def test_runs_whose_node_disappeared_are_retried_as_new_runs_and_failed_ones_are_not(tmp_path: Path) -> None:
    settings = reference(tmp_path).settings
    assert settings["run_retries"] == {
        "enabled": True,
        "max_retries": 8,
        "retry_on_asset_or_op_failure": False,
    }
    assert settings["run_monitoring"]["enabled"]
    assert settings["run_monitoring"]["max_resume_run_attempts"] == 0
    assert settings["run_monitoring"]["poll_interval_seconds"] <= 60
    # Only this detects a job that died while it waited in Ray.
    assert settings["run_monitoring"]["start_timeout_seconds"] <= 120


def settings_with_a_local_database(home: Path) -> Path:
    """A DAGSTER_HOME with these settings, but SQLite instead of PostgreSQL and no S3."""
    settings = yaml.safe_load(SETTINGS.read_text())
    del settings["storage"], settings["compute_logs"]
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return home


def reference(home: Path) -> Any:  # noqa: ANN401 - an InstanceRef, whose settings are an untyped mapping
    """The settings as Dagster reads them, before it connects to anything."""
    shutil.copy(SETTINGS, home / "dagster.yaml")
    with environ(ENVIRONMENT):
        return InstanceRef.from_dir(str(home))


def part(home: Path, name: str) -> Any:  # noqa: ANN401 - an untyped mapping
    """The configuration of one part, environment variables by name."""
    return getattr(reference(home), name).config_dict
