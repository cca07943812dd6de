"""Everything that runs: PostgreSQL, S3 and Dagster on one host, Ray's head beside them, workers on others."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import boto3

from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.storage import S3Options, Store
from cluster import ray_nodes
from cluster.network import join, on_loopback
from cluster.observing import ChipReads
from cluster.scene import TILES, write_chips
from rehearsal import servers
from rehearsal.dagster_api import DagsterApi

PROJECT = Path(__file__).resolve().parent.parent
BUCKETS = ("chips", "models", "embeddings", "cluster", "embeddings-alone", "alone", "logs")
TILES_PER_RUN = 6
CREDENTIALS = "cluster"
"""Key and secret of the S3 server, which takes any."""


class Machines:
    """The coordinator's host, with its servers, and the workers that have joined."""

    def __init__(self, scratch: Path, address: str, stack: ExitStack) -> None:
        """Start the coordinator's servers and fill the bucket.

        Args:
            scratch: Folder for everything that is written.
            address: Of the coordinator's host.
            stack: Stops everything.
        """
        self._started = time.monotonic()
        self._scratch, self._stack, self.address = scratch, stack, address
        self.workers: dict[str, ray_nodes.RayWorker] = {}
        self._postgres = stack.enter_context(servers.postgres(scratch, address))
        self._prepare_database()
        self.endpoint, log = stack.enter_context(servers.s3(scratch, address))
        self.reads = ChipReads(log)
        self.say(f"{address}: PostgreSQL on port {self._postgres}, S3 at {self.endpoint}")
        (scratch / "tiles.txt").write_text("\n".join(TILES) + "\n")
        with ThreadPoolExecutor(1) as pool:  # the bucket is filled while Ray starts
            filled = pool.submit(self._fill)
            self.ray = stack.enter_context(ray_nodes.head(scratch, address, self.environment()))
            self.say(f"{address}: Ray's head, job server at {self.ray.jobs}")
            filled.result()
        self.say(f"{len(TILES)} tiles and a checkpoint are on S3")

    @property
    def separate(self) -> bool:
        """Whether the workers are hosts with a network each."""
        return self.address != servers.LOOPBACK

    def say(self, what: str) -> None:
        """Print a line with the time since the start."""
        print(f"{time.monotonic() - self._started:6.1f} s  {what}", flush=True)

    def environment(self) -> dict[str, str]:
        """Variables of every process, as `deploy/ray/dagster.yaml` asks for them."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CLAY_", "AWS_", "RAY_"))
        }
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # a job runs `dagster`
            "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://dagster@{self.address}:{self._postgres}/dagster",
            "DAGSTER_LOGS_BUCKET": "logs",
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": CREDENTIALS,
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS,
            "XDG_CACHE_HOME": str(self._scratch / "cache"),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def start_dagster(self, gpus: int) -> DagsterApi:
        """Start webserver and daemon with the settings for Ray; the daemon hands CLAY_* on to the runs.

        Args:
            gpus: Of the cluster, as a rule: runs at once.
        """
        home = self._scratch / "dagster"
        home.mkdir()
        settings = (PROJECT / "deploy" / "ray" / "dagster.yaml").read_text()
        # The one thing that is to be changed there: how many GPUs the cluster has.
        (home / "dagster.yaml").write_text(
            re.sub(r"(max_concurrent_runs|limit): \d+", rf"\1: {gpus}", settings)
        )
        environment = {
            **self.environment(),
            **self._settings("cluster", "embeddings"),
            "DAGSTER_HOME": str(home),
            "RAY_API_SERVER_ADDRESS": self.ray.jobs,
        }
        url = self._stack.enter_context(servers.dagster(self._scratch, environment, PROJECT, self.address))
        self.say(f"{self.address}: dagster-webserver and dagster-daemon, {url}")
        return DagsterApi(url)

    def add_worker(self) -> ray_nodes.RayWorker:
        """Let another host join the cluster."""
        number = len(self.workers) + 1
        host = join(number) if self.separate else on_loopback(number)
        context = ray_nodes.worker(self._scratch, host, self.ray, self.environment())
        worker = self._stack.enter_context(context)
        self.workers[host.name] = worker
        self.say(f"{host.address}: {host.name} has joined")
        return worker

    def embed_alone(self) -> Mapping[str, str]:
        """Embed all tiles in one process of this host, without Ray; returns the ETags of its files."""
        home = self._scratch / "alone"
        home.mkdir()
        environment = {
            **self.environment(),
            **self._settings("alone", "embeddings-alone"),
            "DAGSTER_HOME": str(home),
        }
        command = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize"]
        command += ["-m", "clay_assets.definitions", "--select", "*"]
        command += ["--partition-range", f"{TILES[0]}...{TILES[-1]}"]
        done = subprocess.run(
            command,
            env={**environment, "CLAY_TILES_PER_RUN": "0"},  # a range on the command line is one run
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"FAILED: one process alone\n{done.stderr[-3000:]}")
        return self.files("embeddings-alone")

    def files(self, bucket: str) -> Mapping[str, str]:
        """The published files of a bucket, name → ETag: of objects stored at once, the MD5 of their bytes."""
        return {Path(found.url).name: found.etag for found in self.store(bucket).list()}

    def forget_results(self) -> None:
        """Remove what backfills have stored, so that the next one has everything to do."""
        for bucket in ("cluster", "embeddings"):
            store = self.store(bucket)
            for found in store.list():
                store.delete(found)

    def store(self, bucket: str) -> Store:
        """A bucket of the S3 server."""
        return Store(
            f"s3://{bucket}",
            S3Options(
                endpoint_url=self.endpoint,
                region_name="us-east-1",
                aws_access_key_id=CREDENTIALS,
                aws_secret_access_key=CREDENTIALS,
            ),
        )

    def _prepare_database(self) -> None:
        """What the head of `deploy/ray/dagster.yaml` asks for."""
        command = [
            str(servers.find_program("psql", "postgresql")),
            "-h",
            self.address,
            "-p",
            str(self._postgres),
        ]
        statement = "ALTER DATABASE dagster SET idle_in_transaction_session_timeout = '30s'"
        subprocess.run(
            [*command, "-U", "dagster", "-q", "-c", statement, "dagster"],
            check=True,
            stdin=subprocess.DEVNULL,
        )

    def _settings(self, other: str, output: str) -> dict[str, str]:
        return {
            "CLAY_CHIPS_URI": "s3://chips",
            "CLAY_CHECKPOINT": "s3://models/tiny.ckpt",
            "CLAY_OUTPUT_URI": f"s3://{output}",
            "CLAY_WORK_URI": f"s3://{other}/work",
            "CLAY_STAC_URI": f"s3://{other}/stac",
            "CLAY_TILES": str(self._scratch / "tiles.txt"),
            "CLAY_TILES_PER_RUN": str(TILES_PER_RUN),
            "CLAY_DEVICE": "cpu",
            "CLAY_ALLOW_UNTRAINED": "1",
        }

    def _fill(self) -> None:
        client = boto3.client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=CREDENTIALS,
            aws_secret_access_key=CREDENTIALS,
        )
        for bucket in BUCKETS:
            client.create_bucket(Bucket=bucket)
        write_chips(self.store("chips"))
        checkpoint = self._scratch / "tiny.ckpt"
        write_untrained_checkpoint(checkpoint, model_size="tiny")
        self.store("models").put("tiny.ckpt", checkpoint)
