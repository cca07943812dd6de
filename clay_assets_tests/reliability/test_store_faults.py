"""A store that fails in every way that networks do: nothing is lost, and no damaged bytes are used."""

import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from clay_assets.embedding.stream.chip_stream import GIVE_UP_S
from clay_assets.pipeline import RunStopped
from clay_assets.storage import TransferFailed, connection
from clay_assets_tests.reliability.proxy import TRANSIENT, Decision, Fault, at_rates, proxying
from clay_assets_tests.reliability.tiles import TILE, published, put_chips, run_tiles, stores_of
from clay_assets_tests.s3_server import S3Bucket

CHIPS = 200
RATE = 0.05


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall is given up after a second, so that many of them take a test's time."""
    monkeypatch.setattr(connection, "READ_TIMEOUT", timedelta(seconds=1))


@pytest.mark.usefixtures("impatient")
def test_a_tile_behind_a_store_that_fails_in_every_way_is_the_same_to_the_bit(
    bucket: S3Bucket, tmp_path: Path
) -> None:
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
    assert set(proxy.injected) == set(TRANSIENT), "not every kind of fault came up"
    assert sum(proxy.injected.values()) > CHIPS * RATE * len(TRANSIENT)
    assert published(bucket.store("disturbed/output")) == published(undisturbed.output) != {}


def of_chip(number: int, fault: Fault) -> Decision:
    """One chip meets a fault at every attempt."""
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
def test_a_chip_that_never_comes_fails_its_tile_and_says_what_to_do(
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
        assert published(stores.output) == {}, "a file without the chip"

        proxy.decide = lambda _: None
        (again,) = run_tiles(stores, tmp_path, TILE)

    assert again.results is not None
    assert again.results.summary.embedded == 5


def test_a_chip_that_may_not_be_read_is_skipped_and_says_so(bucket: S3Bucket, tmp_path: Path) -> None:
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


def test_a_token_that_expires_midway_stops_the_run_and_loses_nothing(
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


def test_a_dead_network_is_given_up_in_the_stated_time(
    bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "READ_TIMEOUT", timedelta(seconds=1))
    monkeypatch.setattr(connection, "NO_MORE_ATTEMPTS_AFTER", timedelta(seconds=3))
    with proxying(bucket.endpoint) as proxy:
        proxy.decide = lambda _: "stall"
        began = time.monotonic()
        with pytest.raises(TransferFailed, match="in every attempt"):
            stores_of(bucket, proxy.url, "made").chips.list()

    # As connection.py states it, with a second for a busy machine and the last wait between two attempts.
    assert time.monotonic() - began < 3 + 1 + 3


STALLED = """
import signal, sys
from pathlib import Path
from clay_assets_tests.reliability.tiles import run_tiles, stores_of
from clay_assets_tests.s3_server import S3Bucket

def stop(*_: object) -> None:
    raise KeyboardInterrupt  # as Dagster does

signal.signal(signal.SIGTERM, stop)
endpoint, name, folder = sys.argv[1:]
print("begun", flush=True)
run_tiles(stores_of(S3Bucket(endpoint, name), endpoint, "made"), Path(folder), "27WXN")
"""


def test_a_run_that_is_stopped_while_chips_do_not_come_ends_soon(bucket: S3Bucket, tmp_path: Path) -> None:
    put_chips(bucket.store("chips"), TILE, 40)
    with proxying(bucket.endpoint) as proxy:
        proxy.decide = lambda request: "stall" if re.search(r"_00[1-4][0-9]\.tif", request.path) else None
        command = [sys.executable, "-c", STALLED, proxy.url, bucket.name, str(tmp_path)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            deadline = time.monotonic() + 60
            while proxy.injected["stall"] < 3 and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(1)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
            took = time.monotonic() - began
        assert "KeyboardInterrupt" in output, output[-2000:]
        assert took < GIVE_UP_S + 10, f"{took:.1f} s, of which {GIVE_UP_S:g} s are allowed to transfers"

        # Some of what came before the stall is kept.
        proxy.decide = lambda _: None
        before = len(proxy.requests)
        (outcome,) = run_tiles(stores_of(bucket, proxy.url, "made"), tmp_path, TILE)
        read = {request.path for request in proxy.requests[before:] if "/chips/" in request.path}
    assert outcome.results is not None
    assert outcome.results.summary.embedded == 40
    assert len([path for path in read if path.endswith(".tif")]) < 40
