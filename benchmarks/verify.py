"""`clay verify` over many tiles on loopback S3: must stay under a minute for 10,000.

Fills a bucket with chips of a few bytes (only their listing is read) and published files that match the
settings, then runs the command in a process of its own. The server is rclone's, or moto's, which is slower:
`--server moto --tiles 1000`.

`--deep` reads every row as well: `--tiles 100 --chips 484 --deep`. `--recompute N` embeds N chips again, so
it fills the bucket with real chips, embedded by an untrained `small` network:
`--tiles 2 --chips 8 --recompute 8`. Either is timed in addition to the plain command.
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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import measure
from clay_assets import embed_tile
from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.publishing.schema import read_provenance
from clay_assets.publishing.versions import inputs_of
from clay_assets.publishing.writer import write_geoparquet
from clay_assets.results import chips_digest
from clay_assets.state import TileStores
from clay_assets.storage import Store
from clay_assets.tiles.inventory import list_chips
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels
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
    parser.add_argument("--deep", action="store_true", help="time `clay verify --deep` as well")
    parser.add_argument("--recompute", type=int, metavar="N", help="time `clay verify --recompute N` as well")
    arguments = parser.parse_args()
    tiles = TILES[: arguments.tiles]
    runs: list[list[str]] = [[]]
    runs += [["--deep"]] if arguments.deep else []
    runs += [["--recompute", str(arguments.recompute)]] if arguments.recompute else []
    with tempfile.TemporaryDirectory(prefix="clay-verify-") as folder, _places(arguments.server) as variables:
        root = Path(folder)
        os.environ.update(variables)
        where = variables.get("ROOT", f"{root}/data")
        stores = TileStores(*(Store(f"{where}/{name}") for name in ("chips", "work", "embeddings")))
        started = time.perf_counter()
        (root / "tiles.txt").write_text("\n".join(tiles))
        fill = _embed if arguments.recompute else _fill
        fill(stores, root, tiles, arguments.chips)
        print(f"filled in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        environment = {
            **os.environ,
            "CLAY_CHIPS_URI": stores.chips.uri,
            "CLAY_WORK_URI": stores.work.uri,
            "CLAY_OUTPUT_URI": stores.output.uri,
            "CLAY_CHECKPOINT": str(root / "clay.ckpt"),
            "CLAY_ALLOW_UNTRAINED": "1",
            "XDG_CACHE_HOME": str(root / "cache"),
        }
        published = sum(file.size for file in stores.output.list())
        for options in runs:
            command = [sys.executable, "-m", "clay_assets", "verify", *options]
            done = measure(command, cwd=root, environment=environment)
            print(done.output)
            row = {
                "benchmark": " ".join(["verify", *options]),
                "server": arguments.server,
                "tiles": len(tiles),
                "chips": arguments.chips * len(tiles),
                "published_gb": round(published / 1e9, 3),
                "wall_s": round(done.wall, 1),
                "cpu_s": round(done.cpu, 1),
                "tiles_per_s": round(len(tiles) / done.wall),
                "peak_mb": round(done.peak_mb),
            }
            print(json.dumps(row))


@contextmanager
def _places(server: str) -> Iterator[dict[str, str]]:
    """Yield the variables that name the stores; `ROOT` is their common address."""
    if server == "folder":
        yield {}
        return
    with rclone() if server == "rclone" else serving() as endpoint:
        bucket = S3Bucket(endpoint, "verify")
        client(endpoint).create_bucket(Bucket=bucket.name)
        yield {**bucket.environment, "ROOT": bucket.uri("data")}


def _fill(stores: TileStores, root: Path, tiles: list[str], chips: int) -> None:
    """Write chips of a few bytes, published files of all tiles, and a description of the checkpoint."""
    (root / "clay.ckpt").write_bytes(b"weights")
    know_checkpoint(stores.work, Store(root / "clay.ckpt"))
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
        inputs = inputs_of(FINGERPRINT, chips_digest(tile, listed), listed)
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


def _embed(stores: TileStores, root: Path, tiles: list[str], chips: int) -> None:
    """Write real chips, and embed and publish each tile with an untrained network."""
    write_untrained_checkpoint(root / "clay.ckpt")
    for tile in tiles:
        for number in range(1, chips + 1):
            pixels = np.roll(chip_pixels(), 37 * number, axis=1)
            stores.chips.write(f"{tile}/{DATE}/{chip_name(number, tile=tile)}", chip_bytes(pixels))
        embed_tile(
            tile,
            chips=stores.chips.uri,
            checkpoint=root / "clay.ckpt",
            output=stores.output.uri,
            work=stores.work.uri,
            allow_untrained=True,
        )


if __name__ == "__main__":
    main()
