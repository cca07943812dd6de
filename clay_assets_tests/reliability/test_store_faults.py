"""A store with network faults of every kind: nothing is lost, and no damaged bytes are used."""

import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from clay_assets.pipeline import RunStopped
from clay_assets.storage import TransferFailed, connection
from clay_assets_tests.reliability.proxy import TRANSIENT, Decision, Fault, at_rates, proxying
from clay_assets_tests.reliability.tiles import TILE, published, put_chips, run_tiles, stores_of
from clay_assets_tests.s3_server import S3Bucket

CHIPS = 200
RATE = 0.05
GIVE_UP_S = 1.0
"""Seconds that a cancelled run waits for transfers, instead of five."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the read timeout to a second, so that a test can afford many stalls."""
    monkeypatch.setattr(connection, "READ_TIMEOUT", timedelta(seconds=1))


@pytest.mark.usefixtures("impatient")
def test_faults_of_every_kind_leave_a_tiles_file_bit_identical(bucket: S3Bucket, tmp_path: Path) -> None:
    undisturbed = stores_of(bucket, bucket.endpoint, "undisturbed")
    put_chips(undisturbed.chips, TILE, CHIPS)
    run_tiles(undisturbed, tmp_path, TILE)
    with proxying(bucket.endpoint) as proxy:
        proxy.decide = at_rates(dict.fromkeys(TRANSIENT, RATE), seed=14)
        disturbed = stores_of(bucket, proxy.url, "disturbed")
        (outcome,) = run_tiles(disturbed, tmp_path, TILE)

    assert outcome.error is None, str(outcome.error)
    assert outcome.results is not None
    assert outcome.results.summary.embedded == CHIPS
    assert set(proxy.injected) == set(TRANSIENT), "not every kind of fault occurred"
    assert sum(proxy.injected.values()) > CHIPS * RATE * len(TRANSIENT)
    assert published(bucket.store("disturbed/output")) == published(undisturbed.output) != {}


def of_chip(number: int, fault: Fault) -> Decision:
    """The fault at every attempt to read one chip."""
    return lambda request: fault if f"_{number:04}.tif" in request.path else None


@pytest.mark.parametrize(
    ("fault", "attempts", "remedy"),
    [
        ("500", 3, "in every attempt.*run again later"),
        ("503", 3, "SlowDown.*in every attempt.*run again later"),
        ("reset", 3, "in every attempt.*Check AWS_ENDPOINT_URL_S3"),
        ("stall", 3, "in every attempt.*Check AWS_ENDPOINT_URL_S3"),
        ("cut", 6, "in every attempt.*Check AWS_ENDPOINT_URL_S3"),
        ("short", 3, "is not the object that was listed: got .*List it again"),
        ("long", 3, "is not the object that was listed: got .*List it again"),
        ("etag", 3, "is not the object that was listed: got .*List it again"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_chip_that_fails_in_every_attempt_fails_its_tile_with_a_remedy(
    fault: Fault, attempts: int, remedy: str, bucket: S3Bucket, tmp_path: Path
) -> None:
    put_chips(bucket.store("chips"), TILE, 5)
    with proxying(bucket.endpoint) as proxy:
        proxy.decide = of_chip(3, fault)
        stores = stores_of(bucket, proxy.url, "made", attempts=3)
        (outcome,) = run_tiles(stores, tmp_path, TILE)
        assert proxy.injected[fault] == attempts
        assert "chips/27WXN/2020-06-15/claytile_27WXN_20200615_v02_0003.tif" in str(outcome.error)
        assert re.search(remedy, str(outcome.error)), outcome.error
        assert published(stores.output) == {}, "a file was published without the chip"

        proxy.decide = lambda _: None
        (again,) = run_tiles(stores, tmp_path, TILE)

    assert again.results is not None
    assert again.results.summary.embedded == 5


def test_a_chip_denied_by_the_store_is_skipped_with_the_reason(bucket: S3Bucket, tmp_path: Path) -> None:
    put_chips(bucket.store("chips"), TILE, 5)
    with proxying(bucket.endpoint) as proxy:
        proxy.decide = of_chip(3, "denied")
        (outcome,) = run_tiles(stores_of(bucket, proxy.url, "made"), tmp_path, TILE)

    assert outcome.error is None
    assert outcome.results is not None
    assert outcome.results.summary.embedded == 4
    (skip,) = outcome.results.summary.skipped
    assert (skip["reason"], skip["source_url"][-8:]) == ("unreadable", "0003.tif")
    assert "AccessDenied" in skip["detail"]
    assert "s3:ListBucket, GetObject" in skip["detail"]


def test_a_token_that_expires_midway_stops_the_run_and_loses_no_results(
    bucket: S3Bucket, tmp_path: Path
) -> None:
    tiles = ("27WXM", "27WXN", "27WXP")
    for tile in tiles:
        put_chips(bucket.store("chips"), tile, 20)
    undisturbed = stores_of(bucket, bucket.endpoint, "undisturbed")
    run_tiles(undisturbed, tmp_path, *tiles)
    with proxying(bucket.endpoint) as proxy:
        stores = stores_of(bucket, proxy.url, "made")
        proxy.decide = lambda _: "expired" if len(proxy.requests) > 60 else None
        with pytest.raises(RunStopped, match=r"ExpiredToken.*have expired: renew them"):
            run_tiles(stores, tmp_path, *tiles)
        proxy.decide = lambda _: None
        outcomes = run_tiles(stores, tmp_path, *tiles)

    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert published(bucket.store("made/output")) == published(undisturbed.output)


def test_requests_on_a_dead_network_end_within_the_documented_time(
    bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "READ_TIMEOUT", timedelta(seconds=1))
    monkeypatch.setattr(connection, "NO_MORE_ATTEMPTS_AFTER", timedelta(seconds=3))
    with proxying(bucket.endpoint) as proxy:
        proxy.decide = lambda _: "stall"
        started = time.monotonic()
        with pytest.raises(TransferFailed, match="in every attempt"):
            stores_of(bucket, proxy.url, "made").chips.list()

    # The limit of connection.py, the last wait between two attempts, and a margin for a busy machine.
    assert time.monotonic() - started < 3 + 1 + 3


STALLED = """
import signal, sys
from pathlib import Path
from clay_assets.embedding.stream import chip_stream
from clay_assets_tests.embedding.streaming import MeanEmbedder
from clay_assets_tests.reliability.tiles import run_tiles, stores_of
from clay_assets_tests.s3_server import S3Bucket

class Reporting(MeanEmbedder):
    def encode(self, *inputs):
        vectors = super().encode(*inputs)
        print("a batch of", len(vectors), flush=True)
        return vectors

def stop(*_: object) -> None:
    raise KeyboardInterrupt  # like Dagster

signal.signal(signal.SIGTERM, stop)
endpoint, name, folder, give_up_s = sys.argv[1:]
chip_stream.GIVE_UP_S = float(give_up_s)
stores = stores_of(S3Bucket(endpoint, name), endpoint, "made")
run_tiles(stores, Path(folder), "27WXN", embedder=Reporting())
"""


def test_a_run_cancelled_while_reads_stall_ends_soon_and_keeps_finished_chips(
    bucket: S3Bucket, tmp_path: Path
) -> None:
    put_chips(bucket.store("chips"), TILE, 40)
    with proxying(bucket.endpoint) as proxy:
        proxy.decide = lambda request: "stall" if re.search(r"_000[1-3]\.tif", request.path) else None
        command = [sys.executable, "-c", STALLED, proxy.url, bucket.name, str(tmp_path), str(GIVE_UP_S)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            output = ""
            while output.count("a batch of 8") < 4:  # of the 37 chips behind the first three
                output += next(lines)
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            output += process.stdout.read()
            took = time.monotonic() - started
        assert "KeyboardInterrupt" in output, output[-2000:]
        assert took < GIVE_UP_S + 10, f"{took:.1f} s, {GIVE_UP_S:g} s of them for transfers"

        proxy.decide = lambda _: None
        before = len(proxy.requests)
        (outcome,) = run_tiles(stores_of(bucket, proxy.url, "made"), tmp_path, TILE)
        read = {request.path for request in proxy.requests[before:] if "/chips/" in request.path}
    assert outcome.results is not None
    assert outcome.results.summary.embedded == 40
    again = len([path for path in read if path.endswith(".tif")])
    assert again <= 40 - 3 * 8, (
        f"{again} chips read again, although the run embedded 4 batches of 8:\n{output}"
    )
