"""moto's S3 server as a process on loopback, and buckets on it. The fixtures are in `conftest.py`."""

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
SECRET_KEY = "test-secret-key"  # noqa: S105 - the loopback server accepts any
START_TIMEOUT = 60  # seconds, for a busy machine


@dataclass(frozen=True)
class S3Bucket:
    """A bucket on the test server.

    Attributes:
        endpoint: URL of the server.
        name: Name of the bucket.
    """

    endpoint: str
    name: str

    @property
    def options(self) -> S3Options:
        """Endpoint and credentials."""
        return S3Options(
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            max_attempts=2,
        )

    @property
    def environment(self) -> dict[str, str]:
        """`options` as environment variables of the AWS SDK."""
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
    """The AWS SDK's client: the oracle, and for operations that `Store` lacks."""
    return botocore.session.get_session().create_client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


def free_port() -> int:
    """A free TCP port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving() -> Iterator[str]:
    """Run moto's server; yields its URL."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, f"http://127.0.0.1:{port}", {"MOTO_PORT": str(port)}) as endpoint:
        yield endpoint


@contextmanager
def running(command: list[str], endpoint: str, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a server, and stop it when the block ends; yields `endpoint` once the server responds there.

    Args:
        command: Starts the server.
        endpoint: URL that any response is awaited from.
        variables: Added to this process's environment.
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
    """Make the server refuse unknown credentials within the block."""

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
            return  # an error response counts as well
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not respond at {endpoint}. Its output:\n{log.read_text()}")
