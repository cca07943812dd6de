"""Broken transfers, busy servers, and headers of requests."""

import os
import time
import uuid
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from clay_assets.storage import (
    ObjectChanged,
    StorageError,
    Store,
    StoreDenied,
    TransferFailed,
)
from clay_assets_tests.reliability.proxy import proxying
from clay_assets_tests.s3_server import S3Bucket, client, free_port
from clay_assets_tests.storage.misbehaving import CONTENT, ETAG, LISTED, misbehaving, respond, with_keys


def test_a_transfer_that_breaks_midway_is_repeated(tmp_path: Path) -> None:
    def breaks_twice(request: BaseHTTPRequestHandler, number: int) -> None:
        respond(request, 200, CONTENT, send=100_000 if number % 3 else None)

    with misbehaving(breaks_twice) as endpoint:
        store = Store("s3://chips", with_keys(endpoint))

        assert store.read(LISTED) == CONTENT
        store.fetch_to("a.tif", tmp_path / "a.tif")
        assert (tmp_path / "a.tif").read_bytes() == CONTENT


@pytest.mark.parametrize("server", ["s3_server", "rclone"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_file_is_fetched_with_one_request_and_more_only_if_it_breaks(
    server: str, cut: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    endpoint, name, content = request.getfixturevalue(server), f"test{uuid.uuid4().hex}", os.urandom(33 << 20)
    client(endpoint).create_bucket(Bucket=name)
    client(endpoint).put_object(Bucket=name, Key="large", Body=content)
    with proxying(endpoint) as proxy:
        options = S3Bucket(proxy.url, name).options
        proxy.decide = lambda asked: "cut" if cut and (asked.method, asked.attempt) == ("GET", 1) else None
        Store(f"s3://{name}", options).fetch_to("large", tmp_path / "large")

    assert (tmp_path / "large").read_bytes() == content
    assert [asked.method for asked in proxy.requests][:2] == ["HEAD", "GET"]
    assert sum(asked.method == "GET" for asked in proxy.requests) <= (3 if cut else 1)


def test_a_transfer_that_always_breaks_fails_after_its_attempts(tmp_path: Path) -> None:
    requests = []

    def always_breaks(request: BaseHTTPRequestHandler, number: int) -> None:
        requests.append(number)
        respond(request, 200, CONTENT, send=300_000)

    with misbehaving(always_breaks) as endpoint:
        store = Store("s3://chips", with_keys(endpoint, max_attempts=3))
        with pytest.raises(TransferFailed, match=r"chips/a\.tif.*in every attempt.*Check") as raised:
            store.read(LISTED)
        assert len(requests) == 2 * 3, "the whole object is requested once more"
        with pytest.raises(TransferFailed):
            store.fetch_to(LISTED, tmp_path / "a.tif")

    assert not raised.value.systemic
    assert list(tmp_path.iterdir()) == []


def test_a_request_to_a_server_that_is_briefly_busy_is_repeated() -> None:
    def busy_at_first(request: BaseHTTPRequestHandler, number: int) -> None:
        respond(request, 503, b"<Error><Code>SlowDown</Code></Error>") if number == 1 else respond(
            request, 200, CONTENT
        )

    with misbehaving(busy_at_first) as endpoint:
        assert Store("s3://chips", with_keys(endpoint)).read(LISTED) == CONTENT


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_that_stays_busy_is_a_failed_transfer(status: int) -> None:
    requests = []

    def busy(request: BaseHTTPRequestHandler, number: int) -> None:
        requests.append(number)
        respond(request, status, b"<Error><Code>SlowDown</Code><Message>Too fast</Message></Error>")

    with (
        misbehaving(busy) as endpoint,
        pytest.raises(TransferFailed, match=r"SlowDown, Too fast.*run again later"),
    ):
        Store("s3://chips", with_keys(endpoint, max_attempts=2)).read(LISTED)

    assert len(requests) == 2, "the two layers of retries multiply"


def test_the_first_code_and_message_of_an_error_are_the_errors_own() -> None:
    nested = b"<Errors><Error><Code>NoSuchBucket</Code><Message>of a replica</Message></Error></Errors>"

    def refuse(request: BaseHTTPRequestHandler, _: int) -> None:
        respond(request, 403, b"<Error><Code>ExpiredToken</Code><Message>Old</Message>%b</Error>" % nested)

    with misbehaving(refuse) as endpoint, pytest.raises(StoreDenied, match=r"ExpiredToken, Old.*renew them"):
        Store("s3://chips", with_keys(endpoint)).read(LISTED)


def test_a_missing_server_is_soon_a_failed_transfer() -> None:
    began = time.monotonic()
    store = Store("s3://chips", with_keys(f"http://127.0.0.1:{free_port()}", max_attempts=2))

    with pytest.raises(TransferFailed, match=r"Connection refused.*Check AWS_ENDPOINT_URL_S3"):
        store.list()

    assert time.monotonic() - began < 5


@pytest.mark.parametrize("length", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_an_object_of_another_size_than_listed_is_not_read(length: int) -> None:
    def ignores_if_match(request: BaseHTTPRequestHandler, _: int) -> None:
        respond(request, 200, (CONTENT + b"more")[:length])

    with (
        misbehaving(ignores_if_match) as endpoint,
        pytest.raises(ObjectChanged, match=rf"got {length} bytes"),
    ):
        Store("s3://chips", with_keys(endpoint)).read(LISTED)


def test_a_body_without_end_is_not_read() -> None:
    sent = []

    def endless(request: BaseHTTPRequestHandler, _: int) -> None:
        request.send_response(200)
        request.send_header("ETag", f'"{ETAG}"')
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        try:
            for _ in range(1000):  # up to 1 GB
                request.wfile.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
                sent.append(1)
        except ConnectionError:
            request.close_connection = True

    with misbehaving(endless) as endpoint:
        store = Store("s3://chips", with_keys(endpoint, max_attempts=1))
        for target in (LISTED, "a.tif"):
            with pytest.raises(StorageError, match=r"did not report the object's size"):
                store.read(target)

    assert len(sent) < 50


@pytest.mark.parametrize("setting", [None, "when_required", "when_supported"])
def test_uploads_carry_a_checksum_only_if_the_aws_settings_require_it(
    setting: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting:
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
    headers = []

    def accept(request: BaseHTTPRequestHandler, _: int) -> None:
        headers.append({name.lower() for name in request.headers})
        request.rfile.read(int(request.headers["Content-Length"]))
        respond(request, 200, b"")

    with misbehaving(accept) as endpoint:
        Store("s3://chips", with_keys(endpoint)).write("a", b"chip")

    assert "x-amz-content-sha256" in headers[0], "the signature holds the content's SHA-256 in any case"
    assert ("x-amz-checksum-sha256" in headers[0]) == (setting == "when_supported")


@pytest.mark.parametrize("pays", [True, False])
def test_the_reader_pays_if_the_options_say_so(pays: bool) -> None:
    headers = []

    def accept(request: BaseHTTPRequestHandler, _: int) -> None:
        headers.append(request.headers.get("x-amz-request-payer"))
        respond(request, 200, CONTENT)

    with misbehaving(accept) as endpoint:
        Store("s3://chips", replace(with_keys(endpoint), request_payer=pays)).read(LISTED)

    assert headers == ["requester" if pays else None]
