"""How long a tick of the schedule takes: looking at every tile of a manifest.

    python -m benchmarks.tick --tiles 56000 --current 2000

Chips are names of a few bytes, results and published files are made up; no network runs. In a folder a look
costs this process's CPU and nothing else. On S3 it costs the client's CPU, measured against a server on
loopback, and waiting, which is arithmetic: requests, the latency given, and how many tiles are looked at at
a time.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path

import dagster as dg

from clay_assets.dagster.assets import KEYS
from clay_assets.dagster.automation import JOB
from clay_assets.dagster.run_requests import plan_runs, tiles_under_way
from clay_assets.state import Target, TileStores, survey
from clay_assets.state.survey import LOOKERS
from clay_assets.storage import Store
from clay_assets_tests.s3_server import S3Bucket, client, serving
from clay_assets_tests.tile_scene import FINGERPRINT, finish, put_chips

BANDS = "CDEFGHJKLMNPQRSTUVWX"
COLUMNS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
ROWS = "ABCDEFGHJKLMNPQRSTUV"

REQUESTS = 3
"""For a look at a current tile: a LIST of its chips, and one read of the end of its results and of its
published file."""

WANTED = Target(level=FINGERPRINT.level, version=1, precision=FINGERPRINT.precision, preprocessing=1)


def codes(count: int) -> list[str]:
    """So many MGRS codes, sorted."""
    zones = [f"{zone:02}" for zone in range(1, 61)]
    return ["".join(parts) for parts in islice(product(zones, BANDS[8:], COLUMNS[:10], ROWS[:8]), count)]


def look(stores: TileStores, tiles: Sequence[str]) -> dict[str, float]:
    """Look at tiles as a tick does, planning runs included; returns wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    states = survey(stores, tiles, WANTED)
    with dg.DagsterInstance.ephemeral() as instance:
        under_way = tiles_under_way(instance, JOB, KEYS, tiles)
    runs = list(plan_runs(states, under_way, 64))
    spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return {**spent, "tiles": len(tiles), "runs": len(runs)}


def in_folder(root: Path, tiles: Sequence[str], current: int) -> list[dict[str, float]]:
    """All tiles with one chip each, none embedded; and some that are current."""
    stores = TileStores(Store(root / "chips"), Store(root / "work"), Store(root / "output"))
    for store in (stores.work, stores.output):
        Path(store.uri).mkdir(parents=True)
    for tile in tiles:
        # Written plainly: `Store` waits for the disk after each file.
        folder = root / "chips" / tile / "2020-06-15"
        folder.mkdir(parents=True)
        (folder / f"claytile_{tile}_20200615_v02_0001.tif").write_bytes(b"a chip")
    new = look(stores, tiles)
    for tile in tiles[:current]:
        finish(stores, tile, chips=1)
    return [new, look(stores, tiles[:current])]


def on_s3(tiles: Sequence[str]) -> dict[str, float]:
    """The client's CPU for tiles that are current; the server's is another process's."""
    with serving() as endpoint:
        bucket = S3Bucket(endpoint, "tick")
        client(endpoint).create_bucket(Bucket=bucket.name)
        stores = TileStores(bucket.store("chips"), bucket.store("work"), bucket.store("output"))
        for tile in tiles:
            put_chips(stores, tile, [1])
            finish(stores, tile, chips=1)
        look(stores, tiles[:8])  # connections and credentials
        return look(stores, tiles)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", type=int, default=56_000, help="of the manifest")
    parser.add_argument("--current", type=int, default=2_000, help="of these, embedded and published")
    parser.add_argument("--on-s3", type=int, default=200, help="tiles on the S3 server")
    parser.add_argument("--latency", type=float, default=0.04, help="seconds of an S3 request")
    options = parser.parse_args()
    tiles = codes(options.tiles)
    with tempfile.TemporaryDirectory(prefix="clay-tick-") as folder:
        new, current = in_folder(Path(folder), tiles, options.current)
    remote = on_s3(tiles[: options.on_s3])
    for what, row in (("folder, new", new), ("folder, current", current), ("S3, current", remote)):
        each = 1000 * row["cpu_s"] / row["tiles"]
        print(
            f"measured   {what:16} {row['tiles']:7,.0f} tiles {row['wall_s']:8.1f} s"
            f" {each:6.2f} ms CPU a tile, {row['runs']:,.0f} runs"
        )
    cpu = options.tiles * remote["cpu_s"] / remote["tiles"]
    waiting = options.tiles * REQUESTS * options.latency / LOOKERS
    print(
        f"projected  S3, current      {options.tiles:7,} tiles {max(cpu, waiting):8.1f} s: {cpu:.0f} s of one"
        f" core, and {waiting:.0f} s of waiting beside it ({REQUESTS} requests a tile of"
        f" {1000 * options.latency:.0f} ms, {LOOKERS} tiles at a time)"
    )
    print(json.dumps({"benchmark": "tick", "new": new, "current": current, "s3": remote}))


if __name__ == "__main__":
    main()
