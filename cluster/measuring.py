"""CPU seconds per tile with one, two and three workers, of the runs and of the servers.

The servers and Ray's daemons also use CPU while nothing happens. This is measured first and subtracted.
"""

import time
from collections.abc import Mapping

from cluster.machines import TILES
from cluster.observing import cpu_seconds
from cluster.play import Cluster

AROUND = ("Dagster", "PostgreSQL", "Ray", "S3 server")
"""Roles other than the runs."""

IDLE_S = 20
WORKERS = 3


def measure(cluster: Cluster) -> None:
    """Run a backfill with each number of workers and print the CPU seconds per tile.

    Args:
        cluster: Without workers.
    """
    rows = []
    for workers in range(1, WORKERS + 1):
        cluster.machines.add_worker()
        cluster.machines.forget_results()
        idle = _idle()
        cluster.begin()
        began = time.monotonic()
        with cpu_seconds() as spent:
            cluster.wait_for(cluster.launch(f"with {workers} workers"))
            wall, seconds = time.monotonic() - began, spent()
        rows.append(_row(workers, idle, wall, seconds))
        requests = cluster.machines.reads.requests()
        cluster.say("requests per tile: " + _each(requests))
    print("\n| workers | wall, s | runs, CPU s/tile | " + " | ".join(AROUND) + " | idle, CPU s/s |")
    print("|---" * (4 + len(AROUND)) + "|")
    print("\n".join(rows), flush=True)


def _idle() -> Mapping[str, float]:
    """Measure the CPU seconds per second by role while nothing happens."""
    time.sleep(10)  # until the new worker has settled
    with cpu_seconds() as spent:
        time.sleep(IDLE_S)
        return {role: seconds / IDLE_S for role, seconds in spent().items()}


def _row(workers: int, idle: Mapping[str, float], wall: float, seconds: Mapping[str, float]) -> str:
    added = [(seconds.get(role, 0.0) - wall * idle.get(role, 0.0)) / len(TILES) for role in AROUND]
    cells = [seconds.get("runs", 0.0) / len(TILES), *added, sum(idle.get(role, 0.0) for role in AROUND)]
    return f"| {workers} | {wall:.0f} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |"


def _each(requests: Mapping[str, int]) -> str:
    return ", ".join(f"{what} {count / len(TILES):.1f}" for what, count in sorted(requests.items()))
