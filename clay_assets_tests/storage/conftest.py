"""A store of each kind, and an environment without the machine's cloud settings."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from clay_assets.storage import S3Options, Store
from clay_assets_tests.s3_server import S3Bucket, client
from clay_assets_tests.storage import servers

CLOUDS = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_")


@pytest.fixture(autouse=True)
def no_credentials_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the developer's cloud settings and the role of a cloud machine."""
    for name in [name for name in os.environ if name.startswith(CLOUDS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))


@pytest.fixture(scope="session")
def rclone() -> Iterator[str]:
    """URL of rclone's S3 server, which treats a requested range as the whole object and ignores If-Match."""
    with servers.rclone() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    """URL of Azurite, Microsoft's emulator of Azure Blob Storage; skips the test if it is not installed."""
    if servers.AZURITE is None:
        pytest.skip("azurite is not installed: npm install --prefix build/azurite azurite")
    with servers.azurite() as endpoint:
        yield endpoint


@pytest.fixture(params=["folder", "moto", "rclone", "azure", "google"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, S3Options | None]:
    """Address and options of an empty store of each kind.

    No emulator of Google Cloud Storage that can be installed here speaks its XML interface, which obstore
    uses. That interface equals S3's except for the credentials, so moto's server replaces it.
    """
    name = f"test{uuid.uuid4().hex}"
    if request.param == "folder":
        (tmp_path / "store").mkdir()
        return str(tmp_path / "store"), None
    if request.param == "azure":
        endpoint = request.getfixturevalue("azurite")
        for variable, value in servers.azure_environment(endpoint).items():
            monkeypatch.setenv(variable, value)
        servers.create_container(endpoint, name)
        return f"az://{name}/some/prefix", S3Options(max_attempts=2)
    endpoint = request.getfixturevalue("rclone" if request.param == "rclone" else "s3_server")
    client(endpoint).create_bucket(Bucket=name)
    if request.param == "google":
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        return f"gs://{name}/some/prefix", S3Options(max_attempts=2)
    bucket = S3Bucket(endpoint, name)
    return bucket.uri("some/prefix"), bucket.options


@pytest.fixture
def store(place: tuple[str, S3Options | None]) -> Store:
    """An empty store of each kind."""
    return Store(*place)
