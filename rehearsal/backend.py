"""PostgreSQL and S3 on one host, the buckets, and the environment variables that point to both.

`rehearsal`, `rehearsal.soak` and `cluster` run on it. Not here: starting processes (`servers`), and which
chips a bucket holds (`scene`).
"""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import requests

from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.storage import S3Options, Store
from rehearsal import servers
from rehearsal.dagster_api import DagsterApi

PROJECT = Path(__file__).resolve().parent.parent
DEPLOY = PROJECT / "deploy"
CREDENTIALS = "loopback"
"""Key and secret for the S3 server, which accepts any."""


class Backend:
    """Running servers with filled buckets.

    Attributes:
        scratch: Folder for everything that is written.
        host: Address of the servers.
        s3_log: Log of the S3 server, one line per request.
        s3: Options that reach the S3 server.
    """

    def __init__(
        self, scratch: Path, stack: ExitStack, tiles: Sequence[str], host: str = servers.LOOPBACK
    ) -> None:
        """Start PostgreSQL and S3.

        Args:
            scratch: Folder for everything that is written.
            stack: Stops the servers.
            tiles: Content of the manifest.
            host: Address to listen on.
        """
        self._started = time.monotonic()
        self._stack = stack
        self.scratch, self.host = scratch, host
        self._port = stack.enter_context(servers.postgres(scratch, host))
        endpoint, self.s3_log = stack.enter_context(servers.s3(scratch, host))
        self.s3 = S3Options(
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS,
            aws_secret_access_key=CREDENTIALS,
        )
        (scratch / "tiles.txt").write_text("\n".join(tiles) + "\n")
        self.say(f"PostgreSQL on port {self._port}, S3 at {endpoint}")

    def say(self, what: str) -> None:
        """Print a line with the time since the start."""
        print(f"{time.monotonic() - self._started:6.1f} s  {what}", flush=True)

    def store(self, location: str) -> Store:
        """Return a bucket, or a prefix of a bucket, of the S3 server."""
        return Store(f"s3://{location}", self.s3)

    def create_buckets(self, *names: str) -> None:
        """Create the buckets `chips`, `models` (with an untrained checkpoint), `logs` and those given."""
        for name in ("chips", "models", "logs", *names):
            requests.put(f"{self.s3.endpoint_url}/{name}", timeout=30).raise_for_status()
        write_untrained_checkpoint(self.scratch / "tiny.ckpt", model_size="tiny")
        self.store("models").put("tiny.ckpt", self.scratch / "tiny.ckpt")

    def environment(self, results: str, tiles_per_run: int, endpoint: str | None = None) -> dict[str, str]:
        """Return the whole environment of a process that runs the pipeline.

        Args:
            results: Bucket for everything that the pipeline writes.
            tiles_per_run: Tiles of a run.
            endpoint: URL of the S3 server; None: the server itself, not a proxy.
        """
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "CLAY_", "DAGSTER_", "RAY_"))
        }
        return {
            **inherited,
            # A Ray job runs `dagster`.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://dagster@{self.host}:{self._port}/dagster",
            "DAGSTER_LOGS_BUCKET": "logs",
            "AWS_ENDPOINT_URL_S3": endpoint or str(self.s3.endpoint_url),
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": CREDENTIALS,
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS,
            "CLAY_CHIPS_URI": "s3://chips",
            "CLAY_CHECKPOINT": "s3://models/tiny.ckpt",
            "CLAY_OUTPUT_URI": f"s3://{results}/embeddings",
            "CLAY_WORK_URI": f"s3://{results}/work",
            "CLAY_STAC_URI": f"s3://{results}/stac",
            "CLAY_TILES": str(self.scratch / "tiles.txt"),
            "CLAY_TILES_PER_RUN": str(tiles_per_run),
            "CLAY_DEVICE": "cpu",
            "CLAY_ALLOW_UNTRAINED": "1",
            "XDG_CACHE_HOME": str(self.scratch / "cache"),
            "PYTHONUNBUFFERED": "1",
        }

    def start_dagster(
        self, environment: Mapping[str, str], settings: Path, changes: Mapping[str, str]
    ) -> DagsterApi:
        """Start webserver and daemon.

        Args:
            environment: Environment of both, and of the runs that they start.
            settings: The file `dagster.yaml`.
            changes: Regular expression → replacement, in the settings.
        """
        home = self.scratch / "dagster"
        home.mkdir()
        text = settings.read_text()
        for pattern, replacement in changes.items():
            text = re.sub(pattern, replacement, text)
        (home / "dagster.yaml").write_text(text)
        variables = {**environment, "DAGSTER_HOME": str(home)}
        url = self._stack.enter_context(servers.dagster(self.scratch, variables, PROJECT, self.host))
        self.say(f"dagster-webserver and dagster-daemon, {url}")
        return DagsterApi(url)


def materialize_range(environment: Mapping[str, str], home: Path, first: str, last: str) -> None:
    """Materialize a range of tiles in one run of the command line.

    Raises:
        SystemExit: If the command fails.
    """
    dagster = str(Path(sys.executable).parent / "dagster")
    command = [dagster, "asset", "materialize", "-m", "clay_assets.definitions", "--select", "*"]
    done = servers.run(
        [*command, "--partition-range", f"{first}...{last}"],
        environment={**environment, "DAGSTER_HOME": str(home), "CLAY_TILES_PER_RUN": "0"},
        cwd=PROJECT,
    )
    if done.returncode:
        raise SystemExit(f"FAILED: the range {first}...{last} on the command line\n{done.stderr[-3000:]}")


def expect(what: str, got: object, expected: object) -> None:
    """Stop if a value differs from the expected one.

    Raises:
        SystemExit: If the two differ.
    """
    if got != expected:
        raise SystemExit(f"FAILED: {what}\n  expected {expected}\n  got      {got}")


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll a condition until it is true.

    Raises:
        TimeoutError: If it is not true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.2)
