"""The dagster.yaml that Dagster's Helm chart renders from `values.yaml`.

Repeats the chart's templates in Python for the keys that we set. A key that the chart does not read is
refused.
https://github.com/dagster-io/dagster/tree/master/helm/dagster
"""

from collections.abc import Mapping
from typing import Any

LAUNCHER: Mapping[str, str] = {
    "imagePullPolicy": "image_pull_policy",
    "loadInclusterConfig": "load_incluster_config",
    "envConfigMaps": "env_config_maps",
    "envSecrets": "env_secrets",
    "envVars": "env_vars",
    "volumes": "volumes",
    "volumeMounts": "volume_mounts",
    "runK8sConfig": "run_k8s_config",
}
RUN_CONFIG: Mapping[str, str] = {
    "containerConfig": "container_config",
    "podSpecConfig": "pod_spec_config",
    "podTemplateSpecMetadata": "pod_template_spec_metadata",
    "jobSpecConfig": "job_spec_config",
    "jobMetadata": "job_metadata",
}
LOGS: Mapping[str, str] = {
    "bucket": "bucket",
    "prefix": "prefix",
    "skipEmptyFiles": "skip_empty_files",
    "uploadInterval": "upload_interval",
}
HOME = "/opt/dagster/dagster_home"
"""The chart's default of `global.dagsterHome`; the Dockerfile makes the folder."""


def dagster_yaml(values: Mapping[str, Any], release: str, namespace: str) -> dict[str, Any]:
    """The instance's settings.

    Args:
        values: Content of values.yaml.
        release: Name of the Helm release.
        namespace: Kubernetes namespace.

    Raises:
        KeyError: If the chart does not read a value.
    """
    daemon = values["dagsterDaemon"]
    for name in ("runCoordinator", "runMonitoring", "runRetries"):
        assert daemon[name] == {"enabled": False}, f"the chart would write {name} a second time"
    settings = {
        "storage": {"postgres": postgres(values["postgresql"])},
        "run_launcher": {
            "module": "dagster_k8s",
            "class": values["runLauncher"]["type"],
            "config": launcher(values, release, namespace),
        },
        "compute_logs": {
            "module": "dagster_aws.s3.compute_log_manager",
            "class": values["computeLogManager"]["type"],
            "config": renamed(values["computeLogManager"]["config"]["s3ComputeLogManager"], LOGS),
        },
        "sensors": threads(daemon["sensors"]),
        "schedules": threads(daemon["schedules"]),
        "telemetry": values["telemetry"],
        "retention": {
            kind: {"purge_after_days": values["retention"][kind]["purgeAfterDays"]}
            for kind in ("schedule", "sensor")
        },
    }
    more = values["additionalInstanceConfig"]
    assert not set(more) & set(settings)
    return {**settings, **more}


def launcher(values: Mapping[str, Any], release: str, namespace: str) -> dict[str, Any]:
    """The run launcher's settings."""
    own = dict(values["runLauncher"]["config"]["k8sRunLauncher"])
    own["envConfigMaps"] = [source["name"] for source in own["envConfigMaps"]]
    own["envSecrets"] = [source["name"] for source in own["envSecrets"]]
    own["runK8sConfig"] = renamed(own["runK8sConfig"], RUN_CONFIG)
    return {
        **renamed(own, LAUNCHER),
        "job_namespace": namespace,
        "service_account_name": values["global"]["serviceAccountName"],
        "dagster_home": HOME,
        "instance_config_map": f"{release}-dagster-instance",
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
    }


def postgres(values: Mapping[str, Any]) -> dict[str, Any]:
    """The database's settings; the chart puts the password into an environment variable."""
    return {
        "postgres_db": {
            "username": values["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": values["postgresqlHost"],
            "db_name": values["postgresqlDatabase"],
            "port": values["service"]["port"],
            "params": values["postgresqlParams"],
            "scheme": values["postgresqlScheme"],
        }
    }


def threads(values: Mapping[str, Any]) -> dict[str, Any]:
    """The daemon's threads for ticks."""
    return renamed(values, {"useThreads": "use_threads", "numWorkers": "num_workers"})


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The values under Dagster's names instead of the chart's."""
    return {names[name]: value for name, value in values.items()}
