"""What a tile costs at one, two and three workers: CPU seconds of the runs, and of everything around them."""

from cluster.observing import cpu_seconds
from cluster.play import Cluster
from cluster.scene import TILES

COORDINATION = ("Dagster", "PostgreSQL", "Ray", "S3 server")
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
        started = cluster.begin()
        with cpu_seconds() as spent:
            cluster.wait_for(cluster.launch(f"with {workers} workers"))
            rows.append((workers, {role: seconds / len(TILES) for role, seconds in spent().items()}))
        cluster.say(f"{workers} workers: {rows[-1][1]}")
        del started
    print("\n| workers | a tile's run, CPU s | " + " | ".join(COORDINATION) + " |")
    print("|---" * (2 + len(COORDINATION)) + "|")
    for workers, seconds in rows:
        cells = [seconds.get("runs", 0.0), *(seconds.get(role, 0.0) for role in COORDINATION)]
        print(f"| {workers} | " + " | ".join(f"{value:.2f}" for value in cells) + " |")
