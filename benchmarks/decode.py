"""Decoders of chips, in chips per second and core: ours, plain rasterio, tifffile, and the limit.

Chips are in the bucket's layout (float32, deflate, strips of one row, bands interleaved, directory at the
end) and in tiles. Their pixels are synthetic land, whose bands have the resolution of their sources, 10, 20
and 30 m (7 MB), or all 10 m (9 MB); and three real places. The limit is libdeflate inflating the same blocks
into one buffer. Decoders take turns, and medians of their CPU time are compared, so that other work on the
machine affects all equally.
"""

import argparse
import io
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from clay_assets.chips import read_chip
from clay_assets.chips.directory import Directory
from clay_assets.chips.geotiff import read_header, read_samples
from clay_assets_tests.geotiffs import chip_bytes, chip_name, read_with_rasterio
from clay_assets_tests.golden import REAL_CHIPS
from clay_assets_tests.recipe import chip_pixels
from clay_model.spec import BANDS, CHIP_SIZE

COARSE = {2: ("B05", "B06", "B07", "B8A", "B11", "B12"), 3: ("dem",)}
"""Bands whose source has pixels of 20 and 30 m: each is repeated two or three times."""

LAYOUTS = {
    "strips, bucket layout": "bucket layout",
    "tiles of 256, predictor": "tiles with a predictor",
    "tiles of 512, bands apart": "bands apart in one tile each",
}

Decoder = Callable[[bytes], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="times that each decoder reads each chip")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="of the rows with several threads"
    )
    arguments = parser.parse_args()
    print(f"{'':42}" + "".join(f"{name:>19}" for name in DECODERS) + f"{'limit':>9}{'ours : rasterio':>17}")
    rows = []
    for scene, pixels in _scenes():
        print(scene)
        files = {layout: chip_bytes(pixels, layout=name) for layout, name in LAYOUTS.items()}
        for layout, data in files.items():
            assert np.array_equal(read_chip(data, chip_name()).pixels, pixels)  # noqa: S101
            rates = _one_thread(data, arguments.rounds)
            rows.append(_row(scene, f"{layout}, {len(data) / 1e6:.1f} MB", 1, rates))
        data = files["strips, bucket layout"]
        rates = _many_threads(data, arguments.rounds // 2 + 1, arguments.threads)
        rows.append(
            _row(scene, f"such strips, {arguments.threads} threads at once", arguments.threads, rates)
        )
    print(json.dumps({"benchmark": "decode", "unit": "chips per second and core", "rows": rows}))


def _scenes() -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield names and pixels, (13, 512, 512)."""
    land = chip_pixels("land")
    coarse = land.copy()
    for factor, bands in COARSE.items():
        source = np.arange(CHIP_SIZE) // factor * factor
        for band in map(BANDS.index, bands):
            coarse[band] = land[band][np.ix_(source, source)]
    yield "land, bands as their sources are", coarse
    yield "land, all bands 10 m", land
    for chip in REAL_CHIPS:
        yield f"real, {chip.name}", chip.pixels()


DECODERS: Mapping[str, Decoder] = {
    "rasterio": read_with_rasterio,
    "tifffile": lambda data: tifffile.imread(io.BytesIO(data), maxworkers=1),
    "ours": lambda data: read_samples(data, read_header(data)),
    "ours, bands apart": lambda data: np.ascontiguousarray(read_samples(data, read_header(data))),
    "ours, read_chip": lambda data: read_chip(data, chip_name()),
}


def _limit(data: bytes) -> Decoder:
    """Return a function that inflates the blocks of a file, each one overwriting the last."""
    blocks = Directory(data).blocks()
    ends = blocks.offsets + blocks.counts
    streams = [data[start:end] for start, end in zip(blocks.offsets, ends, strict=True)]
    buffer = memoryview(bytearray(len(BANDS) * CHIP_SIZE**2 * 4))

    def inflate(_: bytes) -> None:
        for stream in streams:
            imagecodecs.deflate_decode(stream, out=buffer)

    return inflate


def _one_thread(data: bytes, rounds: int) -> dict[str, float]:
    """Return chips per second of CPU time, by decoder."""
    decoders = {**DECODERS, "limit": _limit(data)}
    seconds: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(rounds):
        for name, decode in decoders.items():
            started = time.thread_time()
            decode(data)
            seconds[name].append(time.thread_time() - started)
    return {name: 1 / statistics.median(times) for name, times in seconds.items()}


def _many_threads(data: bytes, rounds: int, threads: int) -> dict[str, float]:
    """Return chips per second of wall time and core, by decoder, with all threads decoding at once."""
    rates: dict[str, list[float]] = {name: [] for name in DECODERS}
    chips = 4 * threads
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            for name, decode in DECODERS.items():
                started = time.perf_counter()
                # Drop the pixels: `map` would keep all until the last chip is decoded.
                list(pool.map(lambda _, decode=decode: decode(data) is None, range(chips)))
                rates[name].append(chips / (time.perf_counter() - started))
    cores = min(threads, os.cpu_count() or 1)
    return {name: statistics.median(values) / cores for name, values in rates.items()}


def _row(scene: str, what: str, threads: int, rates: Mapping[str, float]) -> dict[str, object]:
    """Print a row of the table, and return it for the JSON."""
    limit = f"{rates['limit']:9.1f}" if "limit" in rates else f"{'':9}"
    ratio = rates["ours"] / rates["rasterio"]
    print(f"  {what:40}" + "".join(f"{rates[name]:19.1f}" for name in DECODERS) + f"{limit}{ratio:15.2f} x")
    return {"scene": scene, "what": what, "threads": threads, "ours_to_rasterio": ratio, **rates}


if __name__ == "__main__":
    main()
