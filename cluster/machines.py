"""The hosts of the cluster: one with PostgreSQL, S3, Dagster and Ray's head, and workers that join."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from cluster import ray_nodes
from cluster.network import join, on_loopback
from cluster.observing import ChipReads
from rehearsal import scene, servers
from rehearsal.backend import DEPLOY, Backend, materialize_range
from rehearsal.dagster_api import DagsterApi

TILES = tuple(tile for tile in scene.TILES if tile in scene.GOOD and tile != scene.MIXED)[:24]
TILES_PER_RUN = 6


class Machines:
    """The coordinator's host with its servers, and the workers that have joined."""

    def __init__(self, scratch: Path, address: str, stack: ExitStack) -> None:
        """Start the coordinator's servers and fill the bucket.

        Args:
            scratch: Folder for everything that is written.
            address: Address of the coordinator's host.
            stack: Stops everything.
        """
        self._stack = stack
        self.address = address
        self.workers: dict[str, ray_nodes.RayWorker] = {}
        self.backend = Backend(scratch, stack, TILES, address)
        self.say = self.backend.say
        self.reads = ChipReads(self.backend.s3_log)
        with ThreadPoolExecutor(1) as pool:  # the bucket is filled while Ray starts
            filled = pool.submit(self._fill)
            self.ray = stack.enter_context(ray_nodes.head(scratch, address, self._of_nodes()))
            self.say(f"{address}: Ray's head, job server at {self.ray.jobs}")
            filled.result()
        self.say(f"{len(TILES)} tiles and a checkpoint are on S3")

    def _fill(self) -> None:
        self.backend.create_buckets("cluster", "alone")
        scene.write_chips(self.backend.store("chips"), TILES)

    @property
    def separate(self) -> bool:
        """Whether each worker has its own network."""
        return self.address != servers.LOOPBACK

    def environment(self, results: str) -> dict[str, str]:
        """Return the environment of every process, as `deploy/ray/dagster.yaml` requires it.

        Args:
            results: Bucket for everything that the pipeline writes.
        """
        variables = self.backend.environment(results, TILES_PER_RUN)
        return {**variables, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}

    def _of_nodes(self) -> dict[str, str]:
        # Without CLAY_*: runs inherit their node's variables, but must get these from the daemon.
        variables = self.environment("cluster").items()
        return {name: value for name, value in variables if not name.startswith("CLAY_")}

    def start_dagster(self, gpus: int) -> DagsterApi:
        """Start webserver and daemon with the settings for Ray; the daemon passes CLAY_* to the runs.

        Args:
            gpus: GPUs of the cluster, the one number to change in the settings: the number of concurrent
                runs.
        """
        environment = {**self.environment("cluster"), "RAY_API_SERVER_ADDRESS": self.ray.jobs}
        limits = {r"(max_concurrent_runs|limit): \d+": rf"\1: {gpus}"}
        return self.backend.start_dagster(environment, DEPLOY / "ray" / "dagster.yaml", limits)

    def add_worker(self) -> None:
        """Let another host join the cluster."""
        number = len(self.workers) + 1
        host = join(number) if self.separate else on_loopback(number)
        context = ray_nodes.worker(self.backend.scratch, host, self.ray, self._of_nodes())
        self.workers[host.name] = self._stack.enter_context(context)
        self.say(f"{host.address}: {host.name} has joined")

    def embed_alone(self) -> Mapping[str, str]:
        """Embed all tiles in one process, without Ray, and return the ETags of its files."""
        home = self.backend.scratch / "alone"
        home.mkdir()
        materialize_range(self.environment("alone"), home, TILES[0], TILES[-1])
        return self.files("alone")

    def files(self, results: str) -> Mapping[str, str]:
        """Return the published files, name → ETag: the MD5 of the bytes, as each upload is one request."""
        published = self.backend.store(f"{results}/embeddings").list()
        return {Path(found.url).name: found.etag for found in published}

    def forget_results(self) -> None:
        """Delete what backfills have stored, so that the next one embeds everything."""
        store = self.backend.store("cluster")
        for found in store.list():
            store.delete(found)
