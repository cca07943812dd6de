"""Samples which thread holds the GIL while `benchmarks.feed` runs, with py-spy."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

RATE = 250  # samples per second
HELD, PERIOD, ROUNDS = 0.006, 0.020, 200  # s, s: the known case holds the GIL 30 % of the time


def sampled(arguments: list[str], environment: Mapping[str, str], root: Path) -> Counter[str]:
    """Return how often each stack held the GIL while `benchmarks.feed` ran with these arguments."""
    raw = root / "stacks.txt"
    command = [str(Path(sys.executable).parent / "py-spy"), "record", "--gil", "--threads", "--format", "raw"]
    command += ["--rate", str(RATE), "--output", str(raw), "--", sys.executable, "-m", "benchmarks.feed"]
    subprocess.run([*command, *arguments], env=environment, check=True, capture_output=True)
    lines = (line.rpartition(" ") for line in raw.read_text().splitlines())
    return Counter({stack: int(count) for stack, _, count in lines})


def is_feeding(stack: str) -> bool:
    """Return whether it is a thread of the stream, or listing and results in the main thread."""
    main = "_feed (benchmarks" in stack and "connect (" not in stack
    return main or any(kind in stack for kind in ("fetch-", "decode_", "encode-"))


def print_holders(stacks: Counter[str], chips: int) -> None:
    """Print the frames that held the GIL longest."""
    holders: Counter[str] = Counter()
    for stack, count in stacks.items():
        if is_feeding(stack):
            frames = [frame for frame in stack.split(";") if "clay_assets" in frame]
            holders[(frames or stack.split(";"))[-1]] += count
    for frame, count in holders.most_common(12):
        print(f"{1e3 * count / RATE / chips:7.3f} ms of GIL a chip  {frame}")


def hold_the_gil() -> None:
    """Hold the GIL for a known share of the time."""
    for _ in range(ROUNDS):
        end = time.perf_counter() + HELD
        while time.perf_counter() < end:
            pass
        time.sleep(PERIOD - HELD)
