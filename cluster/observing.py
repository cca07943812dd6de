"""Who did what: read from Dagster's events, Ray's jobs, the S3 server's log and the processes' CPU clocks."""

import contextlib
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests

from rehearsal.dagster_api import DagsterApi

EVENTS = """query($key: AssetKeyInput!, $partitions: [String!]) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode { assetMaterializations(partitions: $partitions) {
      partition runId timestamp
      metadataEntries { label ... on TextMetadataEntry { text } ... on IntMetadataEntry { intValue } }
    } }
  }
}"""

CHIP_READ = re.compile(r'^(\S+) .*"GET (/chips/\S+\.tif)[? ]')
"""A line of the S3 server's log: who fetched which chip."""

REQUEST = re.compile(r'"([A-Z]+) /([^/?]+)(\S*) HTTP')
"""Likewise: method, bucket, and the rest of the address."""

ROLES: Sequence[tuple[str, tuple[str, ...]]] = (
    ("runs", ("execute_run",)),
    ("S3 server", ("moto.server",)),
    ("PostgreSQL", ("postgres",)),
    ("Dagster", ("dagster",)),
    ("Ray", ("ray", "gcs_server", "raylet")),
)
"""What a process does, by words of its command line; the first that fits."""

SAMPLE_S = 0.3
"""Between two looks at the processes' clocks: what a process uses after the last look is missed."""

SETTLED_S = 0.2
"""CPU seconds after which a process is what it says: it has replaced itself by its program."""


@dataclass(frozen=True)
class Embedded:
    """One materialization of `chip_embeddings`.

    Attributes:
        tile: MGRS code.
        run: Dagster's id of the run.
        host: Name of the machine.
        encoded: Chips that went through the network in that run.
    """

    tile: str
    run: str
    host: str
    encoded: int


def embedded_since(api: DagsterApi, tiles: Sequence[str], started: float) -> list[Embedded]:
    """The materializations of tiles since a time, seconds since 1970, in no particular order."""
    found = api.ask(EVENTS, key={"path": ["chip_embeddings"]}, partitions=list(tiles))
    events = []
    for event in found["assetMaterializations"]:
        if int(event["timestamp"]) < 1000 * started:
            continue
        values = {entry["label"]: entry for entry in event["metadataEntries"]}
        encoded = values["chips encoded in this run"]["intValue"]
        events.append(Embedded(event["partition"], event["runId"], values["host"]["text"], encoded))
    return events


def workers_of_runs(jobs: str) -> dict[str, str]:
    """On which worker each run was, run id → name of the node, as Ray's job server tells.

    Args:
        jobs: Its URL.
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
    """The S3 server's log, from where it was read last."""

    log: Path
    position: int = 0

    def skip(self) -> None:
        """Forget what is there so far."""
        self.position = self.log.stat().st_size

    def by_tile(self) -> Mapping[str, Counter[str]]:
        """GET requests for each chip, by tile."""
        reads: dict[str, Counter[str]] = defaultdict(Counter)
        for _, path in self._lines():
            reads[path.split("/")[2]][path] += 1
        return reads

    def addresses(self) -> Mapping[str, set[str]]:
        """The addresses from which each tile's chips were fetched."""
        found: dict[str, set[str]] = defaultdict(set)
        for address, path in self._lines():
            found[path.split("/")[2]].add(address)
        return found

    def requests(self) -> Counter[str]:
        """All requests, by what they are and the bucket: "GET chips", "LIST work"."""
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
    """CPU seconds of all processes below this one, by what they do."""

    roles: dict[psutil.Process, str] = field(default_factory=dict)
    seconds: dict[psutil.Process, float] = field(default_factory=dict)

    def look(self) -> None:
        """Read the clocks once."""
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended
                times = process.cpu_times()
                # A new process first has the command line of the one that started it.
                if self.seconds.get(process, 0) < SETTLED_S:
                    self.roles[process] = role_of(process.cmdline() or [process.name()])
                self.seconds[process] = times.user + times.system

    def by_role(self) -> dict[str, float]:
        """CPU seconds so far."""
        totals: dict[str, float] = defaultdict(float)
        for process, seconds in self.seconds.items():
            totals[self.roles[process]] += seconds
        return totals


def role_of(command: Sequence[str]) -> str:
    """What a process does, by its command line."""
    text = " ".join(command)
    return next((role for role, words in ROLES if any(word in text for word in words)), "other")


@contextmanager
def cpu_seconds() -> Iterator[Callable[[], Mapping[str, float]]]:
    """Measure the block; yields what tells the CPU seconds by role since its start."""
    clock, stop = CpuClock(), threading.Event()
    clock.look()
    before = clock.by_role()

    def watch() -> None:
        while not stop.wait(SAMPLE_S):
            clock.look()

    def spent() -> Mapping[str, float]:
        clock.look()
        return {role: seconds - before[role] for role, seconds in clock.by_role().items()}

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield spent
    finally:
        stop.set()
        watcher.join()


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for something.

    Raises:
        TimeoutError: If it does not come.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.3)
