"""What a tile costs at one, two and three workers: CPU seconds of the runs, and of everything around them.

The servers and Ray's daemons use some CPU as long as they run, whatever there is to do. That is measured
first and stated apart, so that what is stated for a tile is what the tile adds.
"""

import time
from collections.abc import Mapping

from cluster.observing import cpu_seconds
from cluster.play import Cluster
from cluster.scene import TILES

AROUND = ("Dagster", "PostgreSQL", "Ray", "S3 server")
"""What runs beside the runs."""

IDLE_S = 20
WORKERS = 3


def measure(cluster: Cluster) -> None:
    """Run a backfill with each number of workers and print CPU seconds for each tile.

    Args:
        cluster: With no workers yet.
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
        cluster.say("requests a tile: " + _each(requests))
    print("\n| workers | wall, s | runs, CPU s a tile | " + " | ".join(AROUND) + " | idle, CPU s a s |")
    print("|---" * (4 + len(AROUND)) + "|")
    print("\n".join(rows), flush=True)


def _idle() -> Mapping[str, float]:
    """CPU seconds a second, by role, with nothing to do."""
    time.sleep(10)  # the worker that has just joined settles
    with cpu_seconds() as spent:
        time.sleep(IDLE_S)
        return {role: seconds / IDLE_S for role, seconds in spent().items()}


def _row(workers: int, idle: Mapping[str, float], wall: float, seconds: Mapping[str, float]) -> str:
    added = [(seconds.get(role, 0.0) - wall * idle.get(role, 0.0)) / len(TILES) for role in AROUND]
    cells = [seconds.get("runs", 0.0) / len(TILES), *added, sum(idle.get(role, 0.0) for role in AROUND)]
    return f"| {workers} | {wall:.0f} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |"


def _each(requests: Mapping[str, int]) -> str:
    return ", ".join(f"{what} {count / len(TILES):.1f}" for what, count in sorted(requests.items()))
