"""Fixtures shared by all tests: an S3 server on loopback, and buckets on it."""

import ctypes
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from clay_assets_tests.embedding.scene import Scene
from clay_assets_tests.fixtures_model import small_checkpoint as small_checkpoint
from clay_assets_tests.fixtures_model import tiny_checkpoint as tiny_checkpoint
from clay_assets_tests.fixtures_model import tiny_encoder as tiny_encoder
from clay_assets_tests.fixtures_model import v15_checkpoint as v15_checkpoint
from clay_assets_tests.fixtures_model import v15_encoder as v15_encoder
from clay_assets_tests.s3_server import S3Bucket, client, serving

# Background jobs of a shell ignore SIGINT, and their child processes inherit that. Dagster stops its log
# followers by SIGINT: they would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Return freed pixel buffers to the system at once. By default glibc keeps them in the arenas of ended
# threads: 1.6 GB after the tests of runs.
M_MMAP_THRESHOLD = -3
with suppress(AttributeError):  # another C library
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of moto's S3 server."""
    with serving() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_server: str) -> S3Bucket:
    """An empty bucket for this test. The server keeps it in memory until the session ends."""
    made = S3Bucket(s3_server, f"test-{uuid.uuid4().hex}")
    client(s3_server).create_bucket(Bucket=made.name)
    return made


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Empty stores in a folder, and an encoder without a network."""
    return Scene(tmp_path)


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsets the variables that this package, the AWS SDK and Dagster read."""
    for name in [name for name in os.environ if name.startswith(("CLAY_", "AWS_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
