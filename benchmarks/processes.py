"""Chips per second of one run on all cores, and of one run per core; models one run per GPU without GPUs.

Each run embeds tiles of its own, from the listing to the published file, on cores that no other run uses,
after a tile that loads the network. The clock starts when all runs are ready and stops when the last one
ends.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from subprocess import PIPE

from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.demo.chips import CHILE, write_chips
from clay_assets.embed import embed_tile
from clay_model.spec import CHIP_SIZE

WARM = CHILE.tile
TILES = [f"18H{column}B" for column in "ABCDEFGH"]
DISTINCT = 8  # chips written; the others are links


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="size of the network")
    parser.add_argument("--chips", type=int, default=200, help="of each tile; there is a tile for each core")
    parser.add_argument("--rounds", type=int, default=2, help="of both cases in turns")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        _run(Path(arguments.run[0]), arguments.run[1:])
        return
    cores = sorted(os.sched_getaffinity(0))[: len(TILES)]
    with tempfile.TemporaryDirectory(prefix="clay-processes-") as folder:
        root = Path(folder)
        write_untrained_checkpoint(root / "clay.ckpt", model_size=arguments.model)
        write_chips(root / "chips", CHILE, DISTINCT, span=CHIP_SIZE)
        for tile, _ in zip(TILES, cores, strict=False):
            _link_chips(root / "chips", tile, arguments.chips)
        rates: dict[int, list[float]] = {1: [], len(cores): []}
        for _ in range(arguments.rounds):
            for runs, found in rates.items():
                seconds = _embed(root, runs, cores)
                found.append(round(len(cores) * arguments.chips / seconds, 2))
                print(f"{arguments.model}, {runs} runs: {found[-1]} chips/s in {seconds:.1f} s", flush=True)
    print(json.dumps({"benchmark": "processes", "model": arguments.model, "cores": len(cores)} | rates))


def _link_chips(root: Path, tile: str, count: int) -> None:
    chips = sorted((root / WARM).rglob("*.tif"))
    (root / tile).mkdir()
    for number in range(count):
        name = chips[0].name.replace(WARM, tile).replace("_0001.", f"_{number:04}.")
        (root / tile / name).hardlink_to(chips[number % DISTINCT])


def _embed(root: Path, runs: int, cores: list[int]) -> float:
    """Return the seconds in which `runs` runs, on equal shares of the cores, embed a tile for each core."""
    started = []
    with tempfile.TemporaryDirectory(dir=root) as folder:
        for number in range(runs):
            share, tiles = cores[number::runs], TILES[: len(cores)][number::runs]
            command = ["taskset", "--cpu-list", ",".join(map(str, share)), sys.executable]
            command += ["-m", "benchmarks.processes", "--run", folder, *tiles]
            environment = {**os.environ, "OMP_NUM_THREADS": str(len(share))}
            started.append(subprocess.Popen(command, env=environment, stdin=PIPE, stdout=PIPE))
        for process in started:
            process.stdout.readline()  # type: ignore[union-attr] # a pipe
        began = time.perf_counter()
        for process in started:
            process.stdin.close()  # type: ignore[union-attr]
        if any(process.wait() for process in started):
            raise SystemExit("a run failed")
        return time.perf_counter() - began


def _run(folder: Path, tiles: list[str]) -> None:
    for tile in (WARM, *tiles):
        embed_tile(
            tile,
            chips=folder.parent / "chips",
            checkpoint=folder.parent / "clay.ckpt",
            output=folder / "output" / tile,
            work=folder / "work" / tile,
            device="cpu",
            allow_untrained=True,
        )
        if tile == WARM:
            print("ready", flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    main()
