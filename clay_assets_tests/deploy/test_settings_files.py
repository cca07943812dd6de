import importlib
import logging
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._config import process_config
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.instance.ref import InstanceRef
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._daemon.monitoring import concurrency, run_monitoring
from dagster._serdes.config_class import ConfigurableClassData
from dagster._utils.env import environ

from clay_assets.dagster.assets import GPU_POOL, KEYS, build_assets
from clay_assets.settings import Settings
from clay_assets_tests.s3_server import S3Bucket

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
LOG = logging.getLogger(__name__)

ENVIRONMENT = {
    "DAGSTER_POSTGRES_URL": "postgresql+psycopg2://dagster:secret@127.0.0.1:1/dagster",
    "DAGSTER_LOGS_BUCKET": "logs",
}


@pytest.fixture
def production(tmp_path: Path) -> Iterator[InstanceRef]:
    """The production settings as Dagster reads them from a DAGSTER_HOME, before it connects to anything."""
    shutil.copy(DEPLOY / "dagster-production.yaml", tmp_path / "dagster.yaml")
    with environ(ENVIRONMENT):
        yield InstanceRef.from_dir(str(tmp_path))


def test_the_settings_for_one_machine_give_an_instance_with_these_limits(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_storage).__module__.startswith("dagster._core.storage")
        assert (tmp_path / "history" / "runs.db").exists()
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert instance.run_retries_max_retries == 2
        assert not instance.run_retries_retry_on_asset_or_op_failure
        pools = instance.get_concurrency_config().pool_config
        assert pools.default_pool_limit == 1
        assert pools.pool_granularity is not None
        assert pools.pool_granularity.value == "op"
        assert instance.get_concurrency_config().run_queue_config is not None
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 2  # type: ignore[union-attr]
        instance.event_log_storage.initialize_concurrency_limit_to_default(GPU_POOL)
        assert instance.event_log_storage.get_concurrency_info(GPU_POOL).slot_count == 1


def test_an_undetected_dead_run_is_marked_as_failed_after_a_day_and_frees_its_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        process_context: Any = SimpleNamespace(instance=instance, create_request_context=lambda: None)
        run = instance.create_run_for_job(tiles_job())
        for event in (DagsterEventType.PIPELINE_STARTING, DagsterEventType.PIPELINE_START):
            instance.report_dagster_event(DagsterEvent(event.value, run.job_name), run.run_id)
        pools = instance.event_log_storage
        pools.initialize_concurrency_limit_to_default(GPU_POOL)
        assert pools.claim_concurrency_slot(GPU_POOL, run.run_id, "tiles").is_claimed

        def monitor_runs(hours: float) -> tuple[dg.DagsterRunStatus, int]:
            later = time.time() + 3600 * hours
            monkeypatch.setattr(run_monitoring, "get_current_timestamp", lambda: later)
            now = datetime.fromtimestamp(later, UTC)
            monkeypatch.setattr(concurrency, "get_current_datetime", lambda: now)
            list(run_monitoring.execute_run_monitoring_iteration(process_context, LOG))
            list(concurrency.execute_concurrency_slots_iteration(process_context, LOG))
            found = instance.get_run_by_id(run.run_id)
            assert found is not None
            return found.status, len(pools.get_concurrency_info(GPU_POOL).claimed_slots)

        assert monitor_runs(23.9) == (dg.DagsterRunStatus.STARTED, 1)
        assert monitor_runs(24.1) == (dg.DagsterRunStatus.FAILURE, 0)


def test_other_runs_stay_queued_while_one_run_uses_the_gpu(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        embedding, waiting = (instance.create_run_for_job(tiles_job()) for _ in range(2))
        pools = instance.event_log_storage
        pools.initialize_concurrency_limit_to_default(GPU_POOL)

        def blocked(run: dg.DagsterRun) -> bool:
            return GlobalOpConcurrencyLimitsCounter(
                instance,
                [waiting],
                [],
                pools.get_concurrency_keys(),
                pools.get_pool_limits(),
                pool_granularity=instance.get_concurrency_config().pool_config.pool_granularity,
            ).is_blocked(run)

        assert not blocked(waiting)
        assert pools.claim_concurrency_slot(GPU_POOL, embedding.run_id, "tiles").is_claimed
        assert blocked(waiting)
        pools.free_concurrency_slots_for_run(embedding.run_id)
        assert not blocked(waiting)


def test_every_part_of_the_production_settings_is_accepted_by_the_class_it_configures(
    production: InstanceRef,
) -> None:
    found = [getattr(production, name) for name in dir(production) if name.endswith("_data")]
    parts = [part for part in found if isinstance(part, ConfigurableClassData)]
    names = {part.class_name for part in parts}
    assert names >= {"DagsterPostgresStorage", "S3ComputeLogManager", "QueuedRunCoordinator"}
    for part in parts:
        values_of(part)


def test_production_reads_its_database_and_its_bucket_from_the_environment(production: InstanceRef) -> None:
    assert values_of(production.storage_data)["postgres_url"] == ENVIRONMENT["DAGSTER_POSTGRES_URL"]
    assert values_of(production.compute_logs_data)["bucket"] == "logs"


def test_production_limits_runs_and_retries_only_dead_ones(production: InstanceRef) -> None:
    settings: Any = production.settings
    assert settings["concurrency"]["pools"] == {"granularity": "op", "default_limit": 1}
    assert settings["concurrency"]["runs"]["max_concurrent_runs"] == 8
    assert settings["run_retries"] == {
        "enabled": True,
        "max_retries": 2,
        "retry_on_asset_or_op_failure": False,
    }
    assert settings["run_monitoring"]["enabled"]
    assert settings["run_monitoring"]["max_runtime_seconds"] == 86400
    assert settings["telemetry"] == {"enabled": False}


def test_production_logs_go_to_the_bucket_and_endpoint_of_the_environment(
    production: InstanceRef, bucket: S3Bucket
) -> None:
    logs = production.compute_logs_data
    assert logs is not None
    with environ({**bucket.environment, "DAGSTER_LOGS_BUCKET": bucket.name}):
        manager = logs.rehydrate(as_type=type_of(logs))
        with manager.capture_logs(["run", "compute_logs", "step"]):
            print("27WXN: 12 of 480 chips", flush=True)
        manager.dispose()
    keys = [found.url.removeprefix(bucket.uri()) for found in bucket.store().list()]
    assert "/dagster/storage/run/compute_logs/step.out" in keys


@pytest.mark.parametrize("name", ["dagster.yaml", "dagster-production.yaml", "ray/dagster.yaml"])
def test_every_value_has_a_comment_above_it(name: str) -> None:
    lines = [line.strip() for line in (DEPLOY / name).read_text().splitlines()]
    values = [
        (above, line)
        for above, line in pairwise(lines)
        if not line.startswith("#") and (line.startswith("- ") or line.partition(":")[2].strip())
    ]
    assert len(values) > 8
    assert [line for above, line in values if not above.startswith("#")] == []


def tiles_job() -> dg.JobDefinition:
    """The job of a backfill."""
    assets = build_assets(["27WXM", "27WXN"], Settings())
    resources = dict.fromkeys(
        ("chips", "work", "output", "stac", "encoder"), dg.ResourceDefinition.none_resource()
    )
    jobs = [dg.define_asset_job("tiles", list(KEYS))]
    definitions = dg.Definitions(assets=assets, jobs=jobs, resources=resources)
    return definitions.resolve_job_def("tiles")


def values_of(part: ConfigurableClassData | None) -> dict[str, Any]:
    """The validated settings of a part, with environment variables replaced."""
    assert part is not None
    checked = process_config(type_of(part).config_type(), part.config_dict)
    assert checked.success, [error.message for error in checked.errors or ()]
    return dict(checked.value or {})


def type_of(part: ConfigurableClassData) -> Any:  # noqa: ANN401 - one of many classes
    """The class that a part configures."""
    return getattr(importlib.import_module(part.module_name), part.class_name)
