"""The nodes of a Ray cluster: a head without resources for runs, and workers for one run each.

A worker declares a GPU, which Ray does not check. So the settings of `deploy/ray/` assign each run its own
worker, and the runs compute on the CPU.
https://docs.ray.io/en/latest/cluster/vms/user-guides/launching-clusters/on-premises.html
"""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.network import Host
from rehearsal.servers import answers, free_port, running

RAY = str(Path(sys.executable).parent / "ray")
STARTED = "Ray runtime started"
OBJECT_STORE_BYTES = 80_000_000
"""Shared memory per node, about the minimum that Ray accepts: runs store nothing in it."""

MEMORY_BYTES = 16 * 1024**3
"""Memory that a worker declares; Ray uses it for scheduling and allocates none."""


@dataclass(frozen=True)
class RayHead:
    """A running head.

    Attributes:
        address: Address of the cluster, for nodes.
        jobs: URL of the job server.
    """

    address: str
    jobs: str


@dataclass(frozen=True)
class RayWorker:
    """A running worker."""

    host: Host
    process: subprocess.Popen[bytes]

    def vanish(self) -> None:
        """Remove the machine without notice, as a cloud may do with a preemptible one."""
        self.host.cut_off()
        top = psutil.Process(self.process.pid)
        for process in [*top.children(recursive=True), top]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@contextmanager
def head(scratch: Path, address: str, environment: Mapping[str, str]) -> Iterator[RayHead]:
    """Run Ray's head node on this host."""
    port, dashboard = free_port(address), free_port(address)
    command = [RAY, "start", "--head", "--block", f"--node-ip-address={address}", f"--port={port}"]
    command += [f"--dashboard-host={address}", f"--dashboard-port={dashboard}"]
    command += ["--num-cpus=0", "--num-gpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    command += [f"--temp-dir={scratch / 'ray'}", "--disable-usage-stats"]
    log = scratch / "ray-head.log"
    with running(
        "Ray's head",
        command,
        log=log,
        ready=lambda: STARTED in log.read_text(errors="replace") and answers(dashboard, address),
        environment=environment,
        cwd=scratch,
    ):
        yield RayHead(f"{address}:{port}", f"http://{address}:{dashboard}")


@contextmanager
def worker(
    scratch: Path, host: Host, cluster: RayHead, environment: Mapping[str, str]
) -> Iterator[RayWorker]:
    """Run a worker node on a host."""
    command = [*host.prefix, RAY, "start", "--block", f"--address={cluster.address}"]
    command += [f"--node-ip-address={host.address}", f"--node-name={host.name}"]
    command += ["--num-cpus=4", "--num-gpus=1", f"--memory={MEMORY_BYTES}"]
    command += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
    log = scratch / f"{host.name}.log"
    with running(
        f"Ray's {host.name}",
        command,
        log=log,
        ready=lambda: STARTED in log.read_text(errors="replace"),
        environment=environment,
        cwd=scratch,
        stop=signal.SIGKILL if host.is_namespace else signal.SIGTERM,
    ) as process:
        yield RayWorker(host, process)
