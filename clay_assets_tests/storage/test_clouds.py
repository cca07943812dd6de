"""Differences between the clouds: settings and error codes."""

import pytest

from clay_assets.storage import (
    AccessDenied,
    BucketMissing,
    Misconfigured,
    S3Options,
    Store,
    StoreDenied,
    TransferFailed,
)
from clay_assets_tests.s3_server import free_port
from clay_assets_tests.storage.servers import azure_environment, create_container

SECRET = "bm90LXRoZS1rZXktb2YtdGhlLWFjY291bnQ="  # noqa: S105 - only sent to loopback servers


@pytest.fixture
def azure(azurite: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in azure_environment(azurite).items():
        monkeypatch.setenv(name, value)
    return azurite


@pytest.mark.usefixtures("azure")
def test_a_missing_container_is_named() -> None:
    nowhere = Store("az://no-such-container/chips")
    for attempt in (nowhere.list, nowhere.folders, lambda: nowhere.read("a"), lambda: nowhere.exists("a")):
        with pytest.raises(BucketMissing, match=r"az://no-such-container.*Check the bucket's name"):
            attempt()
    for change in (lambda: nowhere.write("a", b""), lambda: nowhere.delete("a")):
        with pytest.raises(BucketMissing):
            change()


@pytest.mark.usefixtures("azure")
def test_a_wrong_account_key_is_explained_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", SECRET)

    with pytest.raises(StoreDenied, match=r"Set AZURE_STORAGE_ACCOUNT_NAME") as raised:
        Store("az://chips").list()

    assert SECRET not in str(raised.value)


def test_a_public_container_is_read_without_credentials(azure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create_container(azure, "public", public=True)
    create_container(azure, "private")
    Store("az://public").write("a.tif", b"chip")
    Store("az://private").write("a.tif", b"chip")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    anonymous = S3Options(use_unsigned_session=True)

    assert [Store("az://public", anonymous).read(found) for found in Store("az://public", anonymous).list()]
    with pytest.raises((BucketMissing, AccessDenied), match=r"Set AZURE_STORAGE_ACCOUNT_NAME"):
        Store("az://private", anonymous).read("a.tif")


def test_an_azure_store_without_an_account_says_what_to_set() -> None:
    with pytest.raises(Misconfigured, match=r"az://chips.*AZURE_STORAGE_ACCOUNT_NAME"):
        Store("az://chips").list()


def test_a_missing_google_bucket_is_named(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", s3_server)

    with pytest.raises(BucketMissing, match=r"gs://no-such-bucket"):
        Store("gs://no-such-bucket").list()


def test_a_missing_google_server_is_a_failed_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{free_port()}")

    with pytest.raises(TransferFailed, match=r"Connection refused.*STORAGE_EMULATOR_HOST"):
        Store("gs://chips", S3Options(max_attempts=1)).list()
