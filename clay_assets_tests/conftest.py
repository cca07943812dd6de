"""Fixtures for both packages' tests: a real S3 server on loopback, and buckets on it."""

import signal
import uuid
from collections.abc import Iterator

import pytest

from clay_assets_tests.fixtures_model import small_checkpoint as small_checkpoint
from clay_assets_tests.fixtures_model import tiny_checkpoint as tiny_checkpoint
from clay_assets_tests.fixtures_model import tiny_encoder as tiny_encoder
from clay_assets_tests.fixtures_model import v15_checkpoint as v15_checkpoint
from clay_assets_tests.fixtures_model import v15_encoder as v15_encoder
from clay_assets_tests.s3_server import S3Bucket, client, serving

# A shell gives its background jobs an ignored SIGINT, and whatever a test starts would inherit it: Dagster's
# log followers, which are stopped by it, would then not stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of moto's S3 server, started for this session and stopped at its end."""
    with serving() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_server: str) -> S3Bucket:
    """An empty bucket that no other test uses. It goes with the server, which keeps it in memory."""
    made = S3Bucket(s3_server, f"test-{uuid.uuid4().hex}")
    client(s3_server).create_bucket(Bucket=made.name)
    return made
