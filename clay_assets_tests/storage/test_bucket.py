"""Buckets on S3: listings, large files, and credentials."""

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from clay_assets.storage import (
    AccessDenied,
    BucketMissing,
    Misconfigured,
    S3Options,
    StorageError,
    Store,
    StoreDenied,
    TransferFailed,
)
from clay_assets.storage.connection import bucket_region
from clay_assets_tests.reliability.proxy import proxying
from clay_assets_tests.s3_server import S3Bucket, checking_credentials, client, free_port
from clay_assets_tests.storage.misbehaving import misbehaving, respond, with_keys

SECRET = "a-secret/that-must-not/be+shown"  # noqa: S105 - only sent to loopback servers


def test_a_listing_continues_after_the_first_thousand_objects(bucket: S3Bucket) -> None:
    store = bucket.store("chips")
    keys = [f"{n:04}.tif" for n in range(1003)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.write(key, key.encode()), keys))

    listed = store.list()

    assert [found.url for found in listed] == [store.url(key) for key in keys]
    assert store.read(listed[-1]) == b"1002.tif"


def test_a_listing_resumes_after_the_last_page_that_arrived(bucket: S3Bucket) -> None:
    # The first page ends with a marker, which obstore names like its folder: "b-" lies between the two.
    keys = [*(f"a{n:04}" for n in range(998)), "b-", "b/", *(f"b/{n:04}" for n in range(1001))]
    with ThreadPoolExecutor(16) as pool:
        put = partial(client(bucket.endpoint).put_object, Bucket=bucket.name)
        list(pool.map(lambda key: put(Key=key, Body=b"" if key == "b/" else b"chip"), keys))
    with proxying(bucket.endpoint) as proxy:
        proxy.decide = lambda _: "cut" if len(proxy.requests) % 2 else None
        listed = Store(bucket.uri(), replace(bucket.options, endpoint_url=proxy.url)).list()

    assert [found.url for found in listed] == [bucket.uri(key) for key in keys if key != "b/"]
    assert len(proxy.requests) == 2 * 3, "each of three pages is requested twice"


def test_a_listed_name_with_an_empty_part_is_refused_and_named(bucket: S3Bucket) -> None:
    client(bucket.endpoint).put_object(Bucket=bucket.name, Key="27WXN//b.tif", Body=b"")
    store = bucket.store()
    attempts: list[Callable[[], object]] = [
        lambda: store.write("a//b.tif", b""),
        lambda: store.read("a//b.tif"),
        store.list,
    ]
    for attempt in attempts:
        with pytest.raises(StorageError, match=r"//b\.tif.*empty path segment.*Rename or delete") as raised:
            attempt()
        assert not raised.value.systemic

    assert store.list("27WXP/") == []


def test_folder_markers_of_the_console_are_not_listed(bucket: S3Bucket) -> None:
    for key in ("chips/", "chips/27WXN/", "chips/27WXN/a.tif", "chips/27WXN/b.tif/", "chips/28WXN/"):
        client(bucket.endpoint).put_object(Bucket=bucket.name, Key=key, Body=b"")

    store = bucket.store("chips")

    assert [found.url for found in store.list()] == [store.url("27WXN/a.tif")]
    assert store.folders() == ["27WXN", "28WXN"]
    assert bucket.store().list("chips/27WXN/") == store.list()


def test_an_empty_prefix_is_empty_but_a_missing_bucket_is_an_error(bucket: S3Bucket) -> None:
    nothing = bucket.store("nothing/here")
    assert nothing.list() == []
    assert nothing.folders() == []
    nowhere = Store("s3://no-such-bucket/chips", bucket.options)
    attempts: list[Callable[[], object]] = [
        nowhere.list,
        nowhere.folders,
        lambda: nowhere.read("a"),
        lambda: nowhere.exists("a"),
        lambda: nowhere.write("a", b""),
        lambda: nowhere.delete("a"),
    ]
    for attempt in attempts:
        with pytest.raises(BucketMissing, match=r"s3://no-such-bucket.*Check the bucket's name") as raised:
            attempt()
        assert raised.value.systemic


def uploads(bucket: S3Bucket) -> list[Any]:
    """Multipart uploads that are neither completed nor aborted."""
    found: list[Any] = client(bucket.endpoint).list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
    return found


def test_a_large_file_is_stored_in_parts_and_read_as_one(bucket: S3Bucket, tmp_path: Path) -> None:
    content = os.urandom(35 << 20)  # 16 + 16 + 3
    (tmp_path / "large").write_bytes(content)
    store = bucket.store("work")
    store.write("large", b"an earlier one")

    store.put("large", tmp_path / "large")

    (listed,) = store.list()
    assert (listed.size, listed.etag[-2:]) == (len(content), "-3"), "the ETag of an object of three parts"
    assert store.read(listed) == content
    assert uploads(bucket) == []


def test_an_upload_in_parts_that_breaks_leaves_the_earlier_object_and_nothing_else(
    bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(bytes(12 << 20))
    store = bucket.store()
    store.write("large", b"an earlier one")
    monkeypatch.setattr(
        "clay_assets.storage.bucket.PART", 4 << 20
    )  # below the minimum of S3, which refuses at the end

    with pytest.raises(StorageError, match=r"EntityTooSmall"):
        store.put("large", tmp_path / "large")

    assert store.read("large") == b"an earlier one"
    assert uploads(bucket) == []


def test_parts_grow_with_a_file_that_would_need_too_many(
    bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PART": 1 << 20, "MAX_PARTS": 2}.items():
        monkeypatch.setattr(f"clay_assets.storage.bucket.{name}", value)
    content = os.urandom((11 << 20) + 1)
    (tmp_path / "large").write_bytes(content)

    bucket.store().put("large", tmp_path / "large")

    assert bucket.store().read("large") == content
    assert bucket.store().stat("large").etag.endswith("-2")


@pytest.fixture
def users(bucket: S3Bucket) -> Iterator[dict[str, S3Options]]:
    """Options of a user who may do everything and one who may do nothing, on a server that checks."""
    iam = client(bucket.endpoint, "iam")
    options = {}
    for name in ("allowed", "forbidden"):
        user = f"{name}-{bucket.name}"
        iam.create_user(UserName=user)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        options[name] = replace(
            bucket.options, aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"]
        )
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_user_policy(
        UserName=f"allowed-{bucket.name}", PolicyName="all", PolicyDocument=json.dumps(policy)
    )
    with checking_credentials(bucket.endpoint):
        yield options


def test_valid_credentials_are_accepted_by_a_server_that_checks_them(
    bucket: S3Bucket, users: dict[str, S3Options]
) -> None:
    store = Store(bucket.uri("chips"), users["allowed"])
    store.write("a.tif", b"chip")

    assert [store.read(found) for found in store.list()] == [b"chip"]


def test_bad_credentials_are_explained_at_once_and_not_shown(
    bucket: S3Bucket, users: dict[str, S3Options]
) -> None:
    cases = {
        r"InvalidAccessKeyId.*does not know this access key": replace(
            bucket.options, aws_access_key_id="AKIAUNKNOWN", aws_secret_access_key=SECRET
        ),
        r"SignatureDoesNotMatch.*secret key does not belong": replace(
            users["allowed"], aws_secret_access_key=SECRET
        ),
        r"Unable to locate credentials.*AWS_ACCESS_KEY_ID": S3Options(endpoint_url=bucket.endpoint),
        r"missing: aws_secret_access_key": S3Options(
            endpoint_url=bucket.endpoint, aws_access_key_id="AKIAUNKNOWN"
        ),
        r"profile \(nobody\) could not be found.*AWS_PROFILE": S3Options(profile_name="nobody"),
    }
    for phrase, options in cases.items():
        store = Store(bucket.uri("chips"), replace(options, max_attempts=50))
        attempts: list[Callable[[], object]] = [store.list, partial(store.write, "a", b"")]
        for attempt in attempts:
            began = time.monotonic()
            with pytest.raises(StoreDenied, match=phrase) as raised:
                attempt()
            assert time.monotonic() - began < 20, "a permanent error was tried again"
            assert raised.value.systemic
            _shows_none_of(raised.value, options.aws_access_key_id, options.aws_secret_access_key)
        with pytest.raises(AccessDenied):  # a response to HEAD has no body with the cause
            store.stat("a")


def test_a_denied_listing_or_write_is_systemic_and_a_denied_object_is_not(
    bucket: S3Bucket, users: dict[str, S3Options]
) -> None:
    allowed, forbidden = (Store(bucket.uri("chips"), users[name]) for name in ("allowed", "forbidden"))
    allowed.write("a.tif", b"chip")
    throughout: list[Callable[[], object]] = [
        forbidden.list,
        forbidden.folders,
        partial(forbidden.write, "a.tif", b""),
    ]
    single: list[Callable[[], object]] = [
        partial(forbidden.read, "a.tif"),
        partial(forbidden.stat, "a.tif"),
    ]
    for attempt in throughout:
        with pytest.raises(StoreDenied, match=r"AccessDenied.*These credentials may not do this") as denied:
            attempt()
        assert denied.value.systemic
        _shows_none_of(denied.value, users["forbidden"].aws_secret_access_key)
    for attempt in single:
        with pytest.raises(AccessDenied, match="These credentials may not do this") as one:
            attempt()
        assert not one.value.systemic


def _shows_none_of(error: BaseException, *secrets: str | None) -> None:
    """Checks the error and the exceptions that a traceback or Dagster would show with it."""
    shown: BaseException | None = error
    while shown is not None:
        assert not any(secret and secret in f"{shown} {shown!r}" for secret in secrets)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


def test_credentials_are_never_in_a_repr() -> None:
    options = S3Options(aws_access_key_id=SECRET, aws_secret_access_key=SECRET, aws_session_token=SECRET)

    assert SECRET not in repr(options)
    assert SECRET not in repr(Store("s3://chips", options))


def test_credentials_in_a_url_or_an_answer_are_redacted() -> None:
    for secret in (SECRET, SECRET.replace("/", "-")):  # with a slash the SDK refuses the URL
        options = S3Options(endpoint_url=f"http://user:{secret}@127.0.0.1:{free_port()}", max_attempts=1)
        store = Store("s3://chips", replace(options, use_unsigned_session=True))
        with pytest.raises((TransferFailed, Misconfigured), match=r"http://\*\*\*@127") as raised:
            store.list()
        _shows_none_of(raised.value, secret)

    def echo(request: BaseHTTPRequestHandler, _: int) -> None:
        body = f"<Error><Code>Teapot</Code><Message>not with {SECRET}</Message></Error>".encode()
        respond(request, 418, body)

    with misbehaving(echo) as endpoint:
        options = replace(with_keys(endpoint), aws_session_token=SECRET)
        with pytest.raises(StorageError, match=r"Teapot, not with \*\*\*") as echoed:
            Store("s3://chips", options).list()
    _shows_none_of(echoed.value, SECRET)


def test_public_objects_are_read_without_credentials_and_private_ones_are_not(bucket: S3Bucket) -> None:
    s3 = client(bucket.endpoint)
    s3.put_object(Bucket=bucket.name, Key="public", Body=b"for all", ACL="public-read")
    s3.put_object(Bucket=bucket.name, Key="private", Body=b"for some")
    anonymous = Store(bucket.uri(), S3Options(endpoint_url=bucket.endpoint, use_unsigned_session=True))

    assert anonymous.read("public") == b"for all"
    with pytest.raises(AccessDenied, match=r"s3://.*private.*These credentials may not") as denied:
        anonymous.read("private")
    assert not denied.value.systemic


def test_the_sdks_variables_are_enough(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    Store(bucket.uri()).write("a.tif", b"chip")

    assert [found.url for found in bucket.store().list()] == [bucket.uri("a.tif")]


@pytest.mark.parametrize("by_field", [True, False])
def test_a_profile_is_enough(
    bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_field: bool
) -> None:
    (tmp_path / "config").write_text(
        f"[profile chips]\nregion = us-west-2\nendpoint_url = {bucket.endpoint}\n"
        "aws_access_key_id = a\naws_secret_access_key = b\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    if not by_field:
        monkeypatch.setenv("AWS_PROFILE", "chips")
    Store(bucket.uri(), S3Options(profile_name="chips" if by_field else None)).write("a.tif", b"chip")

    assert bucket.store().exists("a.tif")


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        (S3Options(endpoint_url="localhost:9000"), r"Invalid endpoint: localhost:9000"),
        (S3Options(region_name="not a region"), r"'not a region'"),
    ],
)
def test_settings_that_cannot_work_are_named(options: S3Options, phrase: str) -> None:
    with pytest.raises(Misconfigured, match=phrase):
        Store("s3://chips", replace(options, use_unsigned_session=True)).list()


def test_the_region_of_a_bucket_is_learned_from_the_server(bucket: S3Bucket) -> None:
    s3 = client(bucket.endpoint)
    there = f"{bucket.name}-there"
    s3.create_bucket(Bucket=there, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    assert bucket_region(s3, there) == "eu-west-1"
    assert bucket_region(s3, "no-such-bucket-anywhere") == "us-east-1"
