"""A real S3 server for the tests: moto's, in a process of its own, on a free loopback port.

Belongs here: starting and stopping it, and what a test needs to reach a bucket on it. The fixtures are in
`conftest.py`.
"""

import functools
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import botocore.session

from clay_assets.storage import S3Options, Store

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"  # noqa: S105 - of the loopback server, which takes any
START_TIMEOUT = 60  # seconds, for a machine that is busy with other tests


@dataclass(frozen=True)
class S3Bucket:
    """A bucket of its own on the test server.

    Attributes:
        endpoint: URL of the server.
        name: of the bucket.
    """

    endpoint: str
    name: str

    @property
    def options(self) -> S3Options:
        """How to reach it, credentials included."""
        return S3Options(
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            max_attempts=2,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The same as variables of the AWS SDK, for a process or a monkeypatched environment."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def uri(self, prefix: str = "") -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.name}/{prefix}".rstrip("/")

    def store(self, prefix: str = "") -> Store:
        """A store on a prefix of the bucket."""
        return Store(self.uri(prefix), self.options)


@functools.cache
def client(endpoint: str, service: str = "s3") -> Any:  # noqa: ANN401 - botocore makes its clients at run time
    """The AWS SDK's own client, as the oracle and for what a `Store` does not do."""
    return botocore.session.get_session().create_client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


def free_port() -> int:
    """A loopback TCP port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving() -> Iterator[str]:
    """Runs moto's server for the length of the block; yields its URL."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, f"http://127.0.0.1:{port}", {"MOTO_PORT": str(port)}) as endpoint:
        yield endpoint


@contextmanager
def running(command: list[str], endpoint: str, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Runs a server for the length of the block, which begins when it answers.

    Args:
        command: That starts it.
        endpoint: The URL at which it then answers anything at all.
        variables: Of its environment, beside this process's.
    """
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+b") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, **(variables or {})}
        )
        try:
            _wait(process, endpoint, Path(log.name))
            yield endpoint
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def checking_credentials(endpoint: str) -> Iterator[None]:
    """Lets the server refuse credentials that it does not know, for the length of the block."""

    def unchecked(requests: str) -> None:  # moto checks credentials after this many requests
        with closing(HTTPConnection(endpoint.removeprefix("http://"))) as connection:
            connection.request("POST", "/moto-api/reset-auth", requests)
            if connection.getresponse().status != 200:
                raise RuntimeError("moto's server does not take /moto-api/reset-auth")

    unchecked("0")
    try:
        yield
    finally:
        unchecked("inf")


def _wait(process: "subprocess.Popen[bytes]", endpoint: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(endpoint, timeout=5):  # noqa: S310 - http, on loopback
                return
        except urllib.error.HTTPError:
            return  # an answer as well
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not answer at {endpoint}. It wrote:\n{log.read_text()}")
