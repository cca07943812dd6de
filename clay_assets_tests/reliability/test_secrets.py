"""No known secret appears in the logs and files of failing runs, or in the UI."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_webserver.app import create_app_from_workspace_process_context

from clay_assets.dagster import ClayEncoder, ObjectStore, build_defs
from clay_assets.settings import Settings
from clay_assets.storage import Misconfigured, Store
from clay_assets_tests.dagster.command_line import clean_environment
from clay_assets_tests.geotiffs import chip_name, good_chip
from clay_assets_tests.reliability.proxy import Decision, Fault, Proxy, proxying
from clay_assets_tests.s3_server import S3Bucket

SECRETS = {
    "CANARY_KEY": "AKIACANARY0000000KEY",
    "CANARY_SECRET": "canarySecret/0123456789abcdef0123456789ab",
    "CANARY_TOKEN": "canaryToken0123456789abcdef0123456789abcdef==",
}
ROOT = Path(__file__).parents[2]
OURS = ("CANARY_", "CLAY_", "AWS_", "DAGSTER_")
TILE = "27WXN"
WAYS: tuple[Fault, ...] = ("500", "cut", "etag", "expired", "echo")

DEFINITIONS = """
from clay_assets_tests.reliability.test_secrets import definitions
defs = definitions()
"""

RUNS = """{ runsOrError { ... on Runs { results { runId runConfigYaml tags { key value }
  eventConnection { events { __typename ... on MessageEvent { message } ... on ExecutionStepFailureEvent {
    error { message stack causes { message stack } } } } } } } } }"""
RESOURCES = """{ allTopLevelResourceDetailsOrError(repositorySelector:
  {repositoryName: "__repository__", repositoryLocationName: "defs.py"}) { ... on ResourceDetailsList {
  results {
    name configuredValues { key value type } configFields { name defaultValueAsJson } } }
    ... on Error { message } } }"""
ASSETS = (
    """{ assetNodes { assetKey { path } description metadataEntries { label description } opVersion } }"""
)


def definitions() -> dg.Definitions:
    """The code location with secrets as `EnvVar` fields, as the resource's description recommends."""
    stores = {
        name: ObjectStore(
            uri=dg.EnvVar(f"CLAY_{name.upper()}_URI"),
            aws_access_key_id=dg.EnvVar("CANARY_KEY"),
            aws_secret_access_key=dg.EnvVar("CANARY_SECRET"),
            aws_session_token=dg.EnvVar("CANARY_TOKEN"),
            max_attempts=2,
        )
        for name in ("chips", "work", "output", "stac")
    }
    encoder = ClayEncoder(checkpoint=ObjectStore(uri=dg.EnvVar("CLAY_CHECKPOINT")))
    return build_defs(resource_overrides={**stores, "encoder": encoder}, settings=Settings.from_environment())


def always(fault: Fault, part: str) -> Decision:
    """The fault for every request whose path contains a text."""
    return lambda request: fault if part in request.path else None


@pytest.fixture
def project(
    bucket: S3Bucket,
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_settings: None,  # noqa: ARG001
) -> Iterator[tuple[Proxy, Path]]:
    """A bucket behind a proxy, and a folder with a Dagster instance; the environment holds the secrets."""
    for number in (1, 2):
        bucket.store("chips").write(f"{TILE}/2020-06-15/{chip_name(number)}", good_chip())
    (tmp_path / "home").mkdir()
    (tmp_path / "tiles.txt").write_text(TILE + "\n")
    (tmp_path / "defs.py").write_text(DEFINITIONS)
    with proxying(bucket.endpoint) as proxy:
        settings = {
            **SECRETS,
            # Most users have the secrets in the SDK's variables.
            "AWS_ACCESS_KEY_ID": SECRETS["CANARY_KEY"],
            "AWS_SECRET_ACCESS_KEY": SECRETS["CANARY_SECRET"],
            "AWS_SESSION_TOKEN": SECRETS["CANARY_TOKEN"],
            "AWS_ENDPOINT_URL_S3": proxy.url,
            "AWS_REGION": "us-east-1",
            "CLAY_CHECKPOINT": str(tiny_checkpoint),
            "CLAY_TILES": str(tmp_path / "tiles.txt"),
            "DAGSTER_HOME": str(tmp_path / "home"),
            **{f"CLAY_{part}_URI": bucket.uri(part.lower()) for part in ("CHIPS", "WORK", "OUTPUT", "STAC")},
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        yield proxy, tmp_path


def secrets_in(data: bytes) -> list[str]:
    """Names of the secrets in some bytes, as plain, URL-encoded or JSON-encoded text."""
    found = []
    for name, secret in SECRETS.items():
        spellings = {secret, secret.replace("/", "%2F").replace("=", "%3D"), json.dumps(secret)[1:-1]}
        if any(spelling.encode() in data or spelling.encode("utf-16-le") in data for spelling in spellings):
            found.append(name)
    return found


def test_no_secret_is_in_the_output_of_failing_runs_or_in_the_ui(
    project: tuple[Proxy, Path], bucket: S3Bucket, capfd: pytest.CaptureFixture[str]
) -> None:
    proxy, folder = project
    job = definitions().resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        for fault in WAYS:
            proxy.decide = always(fault, "/chips/")
            result = job.execute_in_process(instance=instance, partition_key=TILE, raise_on_error=False)
            assert not result.success
            assert proxy.injected[fault]
    # Once by the command, with Dagster's logs of the processes' output.
    proxy.decide = always("echo", "/chips/")
    command = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize", "-f", "defs.py"]
    ours = {name: value for name, value in os.environ.items() if name.startswith(OURS)}
    environment = {**clean_environment(folder), **ours, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--select", "*", "--partition", TILE], env=environment, capture_output=True, check=False
    )
    assert b"SignatureDoesNotMatch" in done.stdout + done.stderr, done.stderr[-2000:]
    pages = _pages(folder)
    assert b"SignatureDoesNotMatch" in pages, "the UI shows no error of these runs"

    printed = capfd.readouterr()
    written = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    written |= {found.url: bucket.store().read(found) for found in bucket.store().list()}
    written |= {"stdout": printed.out.encode(), "stderr": printed.err.encode(), "pages": pages}
    written |= {"the command": done.stdout + done.stderr}
    assert any(name.endswith(".db") for name in written), "no event log was searched"
    assert {name: found for name, data in written.items() if (found := secrets_in(data))} == {}


def _pages(folder: Path) -> bytes:
    """The webserver's responses to the queries of its pages."""
    target = LoadableTargetOrigin(python_file=str(folder / "defs.py"), working_directory=str(folder))
    location = InProcessCodeLocationOrigin(target, location_name="defs.py")
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(location)) as context,
    ):
        app = create_app_from_workspace_process_context(context)
        responses = [asyncio.run(_post(app, query)) for query in (RUNS, RESOURCES, ASSETS)]
    assert all(b'"errors"' not in response for response in responses), responses
    assert b"CANARY_SECRET" in responses[1], "the UI shows the field by its variable's name"
    return b"\n".join(responses)


async def _post(app: Callable[..., Awaitable[None]], query: str) -> bytes:
    """The body of an ASGI app's response to a GraphQL query."""
    scope = {"type": "http", "method": "POST", "path": "/graphql", "query_string": b""}
    headers = [(b"content-type", b"application/json")]
    parts: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps({"query": query}).encode()}

    async def send(message: dict[str, Any]) -> None:
        parts.append(message.get("body", b""))

    await app({**scope, "headers": headers}, receive, send)
    return b"".join(parts)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_an_address_with_credentials_is_refused_by_an_error_without_them(scheme: str) -> None:
    key, secret = SECRETS["CANARY_KEY"], SECRETS["CANARY_SECRET"]
    for address in (
        f"{scheme}://{key}:{secret}@bucket/prefix",
        f"{scheme}://{SECRETS['CANARY_TOKEN']}@bucket",
    ):
        with pytest.raises(Misconfigured, match="holds credentials") as refusal:
            Store(address)
        assert secrets_in(f"{refusal.value!r}".encode()) == []
