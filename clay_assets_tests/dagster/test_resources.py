"""The resources: their fields, their secrets, and runs that read and write through them."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_aws.s3 import S3Resource

from clay_assets.dagster import ClayEncoder, ObjectStore
from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.storage import AccessDenied, Misconfigured, S3Options
from clay_assets_tests.s3_server import S3Bucket, client


def test_every_field_of_dagster_aws_reaches_the_client_under_its_name() -> None:
    """Fails if dagster-aws has a field that is not passed on."""
    theirs = set(S3Resource.model_fields)

    assert set(ObjectStore.model_fields) == theirs | {"uri", "request_payer"}
    assert {field.name for field in dataclasses.fields(S3Options)} == theirs | {"request_payer"}


def test_every_field_is_described() -> None:
    # Dagster drops the description of a field that is a resource itself.
    fields = {**ObjectStore.model_fields, **ClayEncoder.model_fields}
    assert [name for name, field in fields.items() if not field.description] == ["checkpoint"]


def test_every_s3_field_reaches_the_store(bucket: S3Bucket) -> None:
    """Each field in turn is wrong, and each causes an error: none is dropped."""
    good: dict[str, Any] = {
        "uri": bucket.uri(),
        "endpoint_url": bucket.endpoint,
        "region_name": "us-east-1",
        "aws_access_key_id": "a",
        "aws_secret_access_key": "b",
    }
    assert ObjectStore(**good).store().list() == []
    for name, value, phrase in [
        ("endpoint_url", "nonsense", r"Invalid endpoint: nonsense"),
        ("region_name", "not a region", r"not a region"),
        ("profile_name", "nobody", r"profile \(nobody\)"),
        ("aws_access_key_id", "", r"aws_access_key_id"),
        ("aws_secret_access_key", "", r"aws_secret_access_key"),
    ]:
        with pytest.raises((AccessDenied, Misconfigured), match=phrase):
            ObjectStore(**{**good, name: value}).store().list()


def test_an_anonymous_resource_needs_no_credentials(bucket: S3Bucket) -> None:
    client(bucket.endpoint).put_object(Bucket=bucket.name, Key="a", Body=b"chip", ACL="public-read")
    resource = ObjectStore(uri=bucket.uri(), endpoint_url=bucket.endpoint, use_unsigned_session=True)

    assert resource.store().read("a") == b"chip"


def test_the_store_and_its_connections_are_created_once(tmp_path: Path) -> None:
    resource = ObjectStore(uri=str(tmp_path))

    assert resource.store() is resource.store()
    assert resource.store().uri == str(tmp_path)


def test_secrets_are_not_in_the_repr() -> None:
    secrets = {
        "aws_access_key_id": "k-123",
        "aws_secret_access_key": "s-456",
        "aws_session_token": "t-789",
    }
    resource = ObjectStore.model_validate({"uri": "s3://chips", **secrets})

    for shown in (repr(resource), str(resource), repr(resource.store())):
        assert not any(secret in shown for secret in secrets.values())


def test_an_invalid_address_is_refused_with_the_valid_forms() -> None:
    with pytest.raises(Misconfigured, match=r"az://bucket/prefix; got scheme ftp://"):
        ObjectStore(uri="ftp://chips").store()


def test_a_run_creates_no_client_of_boto3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("created a client of boto3")

    monkeypatch.setattr("boto3.session.Session.client", refuse)
    (tmp_path / "a.tif").write_bytes(b"chip")
    stores = {"chips": ObjectStore(uri=str(tmp_path)), "output": ObjectStore(uri=str(tmp_path / "out"))}

    assert dg.materialize([copied], resources=stores).success


def test_the_encoder_passes_each_field_on(tmp_path: Path) -> None:
    encoder = ClayEncoder(
        checkpoint=ObjectStore(uri=str(tmp_path / "clay.ckpt")),
        level="patch",
        precision="bf16",
        device="cuda:1",
        batch_size="7",
        cache=str(tmp_path),
    )

    settings = encoder.settings()

    assert settings == EncoderSettings(
        encoder.checkpoint.store(), "patch", "bf16", "cuda:1", "7", cache=tmp_path
    )
    assert {field.name for field in dataclasses.fields(EncoderSettings)} == set(ClayEncoder.model_fields)
    assert ClayEncoder(checkpoint=encoder.checkpoint).settings() == EncoderSettings(
        encoder.checkpoint.store()
    )


def test_fewer_than_one_attempt_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"max_attempts: got 0; expected at least 1"):
        ObjectStore(uri="s3://chips", max_attempts=0).store()


@dg.asset
def copied(chips: ObjectStore, output: ObjectStore) -> None:
    for found in chips.store().list():
        output.store().write(Path(found.url).name, chips.store().read(found))


def test_an_asset_reads_a_folder_and_writes_a_bucket(
    bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tif").write_bytes(b"chip")
    monkeypatch.setenv("TEST_OUTPUT_SECRET", "b")
    output = ObjectStore(
        uri=bucket.uri("out"),
        endpoint_url=bucket.endpoint,
        aws_access_key_id="a",
        aws_secret_access_key=dg.EnvVar("TEST_OUTPUT_SECRET"),
    )

    chips = ObjectStore(uri=str(tmp_path))

    result = dg.materialize([copied], resources={"chips": chips, "output": output})

    assert result.success
    assert bucket.store().read("out/a.tif") == b"chip"


def test_a_process_with_only_the_sdks_variables_reaches_the_bucket(bucket: S3Bucket) -> None:
    """It loads no client before the first request, and exits without any output."""
    program = (
        "import sys\n"
        "from clay_assets.dagster import ObjectStore\n"
        f"store = ObjectStore(uri='{bucket.uri()}').store()\n"
        "assert not {'s3fs', 'obstore', 'torch'} & set(sys.modules)\n"
        "store.write('a', b'chip')\n"
    )
    environment = {"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true", **bucket.environment}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert bucket.store().read("a") == b"chip"
