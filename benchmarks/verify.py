"""`clay verify` over many tiles on loopback S3: must stay under a minute for 10,000.

Fills a bucket with chips of a few bytes (a listing is all that is looked at) and published files that are as
the settings say, then runs the command in a process of its own. The server is rclone's, or moto's, which
is the slower of the two: `--server moto --tiles 1000`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import measure
from clay_assets.publishing import read_provenance, write_geoparquet
from clay_assets.publishing.publish import inputs_word
from clay_assets.results.fingerprint import chips_digest
from clay_assets.state import TileStores
from clay_assets.storage import Store
from clay_assets.tiles.inventory import list_chips
from clay_assets_tests.s3_server import S3Bucket, client, serving
from clay_assets_tests.storage.servers import rclone
from clay_assets_tests.tile_scene import DATE, FINGERPRINT, finish, know_checkpoint, put_chips

LETTERS = "ABCDEFGHJKLMNPQRSTUV"
TILES = [
    f"{zone:02}{band}{column}{row}"
    for zone in range(1, 61)
    for band in "STUVW"
    for column in LETTERS[:8]
    for row in LETTERS
]
"""48,000 codes of the form of MGRS."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--chips", type=int, default=2, help="of a tile")
    parser.add_argument("--server", choices=("rclone", "moto", "folder"), default="rclone")
    arguments = parser.parse_args()
    tiles = TILES[: arguments.tiles]
    with tempfile.TemporaryDirectory(prefix="clay-verify-") as folder, _places(arguments.server) as variables:
        root = Path(folder)
        os.environ.update(variables)
        where = variables.get("ROOT", f"{root}/data")
        stores = TileStores(*(Store(f"{where}/{name}") for name in ("chips", "work", "embeddings")))
        _fill(stores, root, tiles, arguments.chips)
        environment = {
            **os.environ,
            "CLAY_CHIPS_URI": stores.chips.uri,
            "CLAY_WORK_URI": stores.work.uri,
            "CLAY_OUTPUT_URI": stores.output.uri,
            "CLAY_CHECKPOINT": str(root / "clay.ckpt"),
            "XDG_CACHE_HOME": str(root / "cache"),
        }
        done = measure([sys.executable, "-m", "clay_assets", "verify"], cwd=root, environment=environment)
    print(done.output)
    row = {
        "benchmark": "verify",
        "server": arguments.server,
        "tiles": len(tiles),
        "chips": arguments.chips * len(tiles),
        "wall_s": round(done.wall, 1),
        "cpu_s": round(done.cpu, 1),
        "tiles_per_s": round(len(tiles) / done.wall),
        "peak_mb": round(done.peak_mb),
    }
    print(json.dumps(row))


@contextmanager
def _places(server: str) -> Iterator[dict[str, str]]:
    """Variables under which the stores are reached; `ROOT` is their common address."""
    if server == "folder":
        yield {}
        return
    with rclone() if server == "rclone" else serving() as endpoint:
        bucket = S3Bucket(endpoint, "verify")
        client(endpoint).create_bucket(Bucket=bucket.name)
        yield {**bucket.environment, "ROOT": bucket.uri("data")}


def _fill(stores: TileStores, root: Path, tiles: list[str], chips: int) -> None:
    """Chips and published files of all tiles, and a description of the checkpoint."""
    started = time.perf_counter()
    (root / "clay.ckpt").write_bytes(b"weights")
    know_checkpoint(stores.work, Store(root / "clay.ckpt"))
    (root / "tiles.txt").write_text("\n".join(tiles))
    sample = TileStores(*(Store(root / f"sample/{name}") for name in ("chips", "work", "embeddings")))
    finish(sample, "27WXN", chips=chips)
    (made,) = sample.output.list()
    provenance = read_provenance(made.url)
    table = pq.read_table(made.url).replace_schema_metadata()
    shape = tuple(table.schema.field("embeddings").type.shape)
    rows = table.set_column(2, "embeddings", table["embeddings"].combine_chunks().storage)

    def put(tile: str) -> None:
        put_chips(stores, tile, range(1, chips + 1))
        listed = list_chips(stores.chips, tile).chips
        inputs = inputs_word(FINGERPRINT, chips_digest(tile, listed), listed)
        day = DATE.replace("-", "")
        path = root / f"{tile}_{day}_{day}_v001.gpq"
        urls = pa.array([chip.url for chip in listed])
        write_geoparquet(
            path, [rows.set_column(0, "source_url", urls)], shape, provenance | {"inputs": inputs}
        )
        stores.output.put(path.name, path)
        path.unlink()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, tiles))
    print(f"filled in {time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
