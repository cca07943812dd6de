"""Brute-force similarity, in GB of float32 vectors per second, and a plain read of the same columns.

Random vectors are written by the package's own writer and searched with `similar`. The limit is pyarrow
reading the same columns in as many threads and discarding them. Both take turns, and medians are compared.

    python -m benchmarks.search --rows 100000
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from clay_assets import similar
from clay_assets.publishing.writer import write_geoparquet
from clay_assets.reading.scan import WORKERS

ROWS_PER_TILE = 1_452
"""Chips of a full tile on three dates."""

SAID = {
    "model": "made-up",
    "checkpoint_sha256": "0" * 64,
    "level": "mean",
    "precision": "fp32",
    "software": "",
}


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    args, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="clay-search-") as name:
        folder = Path(name)
        example = write_collection(folder, args.rows, args.width)
        plain: list[float] = []
        search: list[float] = []
        for _ in range(args.rounds):
            plain.append(timed(lambda: read_columns(folder)))
            search.append(timed(lambda: similar(folder, to=example)))
        size = 4 * args.width * args.rows / 1e9
        on_disk = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
    best_read, best_search = statistics.median(plain), statistics.median(search)
    print(
        json.dumps(
            {
                "rows": args.rows,
                "width": args.width,
                "vectors_gb": round(size, 3),
                "files_gb": round(on_disk, 3),
                "threads": WORKERS,
                "plain_read_s": round(best_read, 3),
                "similar_s": round(best_search, 3),
                "plain_read_gb_per_s": round(size / best_read, 2),
                "similar_gb_per_s": round(size / best_search, 2),
                "share_of_plain_read": round(best_read / best_search, 2),
            }
        )
    )


def write_collection(folder: Path, rows: int, width: int) -> str:
    """Write tiles of `ROWS_PER_TILE` rows; the last may have fewer. Return one chip's URL."""
    random = np.random.default_rng(0)
    common = random.standard_normal(width)
    starts = range(0, rows, ROWS_PER_TILE)
    for tile, start in enumerate(starts):
        count = min(ROWS_PER_TILE, rows - start)
        own = random.standard_normal((count, width))
        vectors = ((common + 0.17 * own) * 2 / np.sqrt(width)).astype(np.float32)
        code = f"{tile % 60 + 1:02}N{chr(65 + tile // 60 % 8)}{chr(65 + tile // 480 % 8)}"
        boxes = shapely.box(
            x := np.arange(count) * 0.05 % 100, y := np.arange(count) * 0.01, x + 0.05, y + 0.05
        )
        table = pa.table(
            {
                "source_url": [
                    f"s3://chips/{code}/claytile_{code}_20200615_v02_{n:04}.tif" for n in range(count)
                ],
                "date": pa.array([18428] * count, pa.int32()).cast(pa.date32()),
                "embeddings": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width),
                "geometry": pa.array(shapely.to_wkb(boxes), pa.binary()),
            }
        )
        write_geoparquet(folder / f"{code}_20200615_20200615_v001.gpq", [table], (width,), SAID)
    return f"s3://chips/{code}/claytile_{code}_20200615_v02_0000.tif"


def read_columns(folder: Path) -> None:
    """Read the same columns with as many threads and discard them."""

    def read(path: Path) -> None:
        with pq.ParquetFile(path, pre_buffer=False) as parquet:
            for _ in parquet.iter_batches(2_730, use_threads=False):
                pass

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(read, sorted(folder.iterdir())))


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
