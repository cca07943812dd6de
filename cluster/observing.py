"""Which host did what: from Dagster's events, Ray's jobs, the S3 server's log and CPU times of processes."""

import contextlib
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests

from rehearsal.dagster_api import DagsterApi

CHIP_READ = re.compile(r'^(\S+) .*"GET (/chips/\S+\.tif)[? ]')
"""Line of the S3 server's log: address of the client, and path of the chip."""

REQUEST = re.compile(r'"([A-Z]+) /([^/?]+)(\S*) HTTP')
"""The same for any request: method, bucket, and rest of the URL."""

ROLES: Sequence[tuple[str, tuple[str, ...]]] = (
    ("runs", ("execute_run",)),
    ("S3 server", ("moto.server",)),
    ("PostgreSQL", ("postgres",)),
    ("Dagster", ("dagster",)),
    ("Ray", ("ray", "gcs_server", "raylet")),
)
"""Role of a process by words in its command line; the first match applies."""

SAMPLE_S = 0.3
"""Between samples of CPU times. CPU time after a process's last sample is lost."""

SETTLED_S = 0.2
"""CPU seconds after which a process has replaced itself by its program, and its command line is final."""


@dataclass(frozen=True)
class Embedded:
    """One materialization of `chip_embeddings`.

    Attributes:
        tile: MGRS code.
        run: Id of the Dagster run.
        host: Host name in the metadata.
        encoded: Chips that the run encoded.
    """

    tile: str
    run: str
    host: str
    encoded: int


def embedded_since(api: DagsterApi, tiles: Sequence[str], started: float) -> list[Embedded]:
    """Return the materializations of tiles since a time (seconds since 1970), in any order."""
    events = []
    for event in api.materializations("chip_embeddings", tiles):
        if int(event["timestamp"]) >= 1000 * started:
            values = {entry["label"]: entry for entry in event["metadataEntries"]}
            encoded = values["chips encoded in this run"]["intValue"]
            events.append(Embedded(event["partition"], event["runId"], values["host"]["text"], encoded))
    return events


def workers_of_runs(jobs: str) -> dict[str, str]:
    """Return the worker of each run, run id → name of the node, from Ray's job server.

    Args:
        jobs: URL of the job server.
    """
    nodes = requests.get(f"{jobs}/api/v0/nodes", timeout=30).json()["data"]["result"]["result"]
    names = {node["node_id"]: node["node_name"] for node in nodes}
    listed = requests.get(f"{jobs}/api/jobs/", timeout=30).json()
    return {
        job["metadata"]["dagster/run-id"]: names[job["driver_node_id"]]
        for job in listed
        if "dagster/run-id" in (job["metadata"] or {}) and job["driver_node_id"] in names
    }


@dataclass
class ChipReads:
    """Requests in the S3 server's log since the last `skip`."""

    log: Path
    position: int = 0

    def skip(self) -> None:
        """Skip what has been logged so far."""
        self.position = self.log.stat().st_size

    def by_tile(self) -> Mapping[str, Counter[str]]:
        """Return the number of GET requests for each chip, by tile."""
        reads: dict[str, Counter[str]] = defaultdict(Counter)
        for _, path in self._lines():
            reads[path.split("/")[2]][path] += 1
        return reads

    def addresses(self) -> Mapping[str, set[str]]:
        """Return the addresses of the clients that fetched a tile's chips, by tile."""
        found: dict[str, set[str]] = defaultdict(set)
        for address, path in self._lines():
            found[path.split("/")[2]].add(address)
        return found

    def requests(self) -> Counter[str]:
        """Return the number of requests by method and bucket: "GET chips", "LIST cluster"."""
        with self.log.open(errors="replace") as file:
            file.seek(self.position)
            found = [match for line in file if (match := REQUEST.search(line))]
        return Counter(f"{'LIST' if 'list-type' in match[3] else match[1]} {match[2]}" for match in found)

    def _lines(self) -> Iterator[tuple[str, str]]:
        with self.log.open(errors="replace") as file:
            file.seek(self.position)
            for line in file:
                if match := CHIP_READ.match(line):
                    yield match[1], match[2]


@dataclass
class CpuClock:
    """CPU seconds of all processes below this one, by role."""

    roles: dict[psutil.Process, str] = field(default_factory=dict)
    seconds: dict[psutil.Process, float] = field(default_factory=dict)

    def sample(self) -> None:
        """Read the CPU times once."""
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # the process has ended
                times = process.cpu_times()
                # A new process first has its parent's command line.
                if self.seconds.get(process, 0) < SETTLED_S:
                    self.roles[process] = role_of(process.cmdline() or [process.name()])
                self.seconds[process] = times.user + times.system

    def by_role(self) -> dict[str, float]:
        """Return the CPU seconds so far, by role."""
        totals: dict[str, float] = defaultdict(float)
        for process, seconds in self.seconds.items():
            totals[self.roles[process]] += seconds
        return totals


def role_of(command: Sequence[str]) -> str:
    """Return the role of a process by its command line."""
    text = " ".join(command)
    return next((role for role, words in ROLES if any(word in text for word in words)), "other")


@contextmanager
def cpu_seconds() -> Iterator[Callable[[], Mapping[str, float]]]:
    """Measure the block; yield a function that returns the CPU seconds by role since its start."""
    clock, stop = CpuClock(), threading.Event()
    clock.sample()
    before = clock.by_role()

    def watch() -> None:
        while not stop.wait(SAMPLE_S):
            clock.sample()

    def spent() -> Mapping[str, float]:
        clock.sample()
        return {role: seconds - before[role] for role, seconds in clock.by_role().items()}

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield spent
    finally:
        stop.set()
        watcher.join()
