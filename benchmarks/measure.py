"""Runs commands and measures them: wall time, CPU time, peak memory of a process tree."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from clay_assets_tests.geotiffs import chip_name

SAMPLE_S = 0.2


@dataclass(frozen=True)
class Measured:
    """The cost of a command.

    Attributes:
        wall: Seconds.
        cpu: CPU seconds of the process and its children.
        peak_mb: Largest sum of their proportional memory (shared pages counted once), MB.
        output: Its output.
    """

    wall: float
    cpu: float
    peak_mb: float
    output: str


def measure(command: Sequence[str | Path], *, cwd: Path, environment: Mapping[str, str]) -> Measured:
    """Run a command to its end.

    Raises:
        RuntimeError: If it fails; the message has the end of its output.
    """
    started = time.perf_counter()
    process = psutil.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watch = _Watch(process)
    watch.start()
    output, _ = process.communicate()
    wall = time.perf_counter() - started
    watch.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{output[-3000:]}")
    return Measured(wall, sum(watch.cpu.values()), watch.peak / 1e6, output)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the variables of the pipeline and the AWS SDK."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CLAY_", "AWS_"))}


def materialize(home: Path, tiles: Sequence[str], variables: Mapping[str, str]) -> Measured:
    """Materialize all assets of tiles in one run, in a process of its own.

    Args:
        home: The working directory; the manifest is written there.
        tiles: Sorted.
        variables: Settings of the pipeline.
    """
    (home / "tiles.txt").write_text("\n".join(tiles) + "\n")
    environment = {
        **clean_environment(),
        "CLAY_TILES_PER_RUN": "0",
        "CLAY_ALLOW_UNTRAINED": "1",
        "XDG_CACHE_HOME": str(home / "cache"),
        **variables,
    }
    if dagster_home := environment.get("DAGSTER_HOME"):
        Path(dagster_home).mkdir(exist_ok=True)
    command = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize", "--select", "*"]
    command += ["-m", "clay_assets.definitions", "--partition-range", f"{tiles[0]}...{tiles[-1]}"]
    return measure(command, cwd=home, environment=environment)


def write_tile(chips: Path, tile: str, date: str, chip: bytes, count: int) -> None:
    """Write `count` links to one chip."""
    folder = chips / tile / date
    folder.mkdir(parents=True)
    first = folder / chip_name(1, tile=tile, date=date)
    first.write_bytes(chip)
    for number in range(2, count + 1):
        (folder / chip_name(number, tile=tile, date=date)).hardlink_to(first)


class _Watch(threading.Thread):
    """Samples a process tree until it ends.

    Proportional memory makes the kernel walk every page: 16 ms for 1.6 GB, which five times a second would
    slow the command down by several percent. It is read only when resident memory, which is cheap to read,
    reaches a new maximum.
    """

    def __init__(self, process: psutil.Popen) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.peak = 0
        self.cpu: dict[int, float] = {}  # seconds by process, at its last sample

    def run(self) -> None:
        largest_resident = 0
        while self._process.poll() is None:
            members = self._members()
            resident = 0
            for member in members:
                with suppress(psutil.Error):  # the process has ended
                    resident += member.memory_info().rss
                    times = member.cpu_times()
                    self.cpu[member.pid] = times.user + times.system
            if resident > largest_resident:
                largest_resident = resident
                self.peak = max(self.peak, sum(map(_proportional, members)))
            time.sleep(SAMPLE_S)

    def _members(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.Error:
            return []


def _proportional(process: psutil.Process) -> int:
    """Return a process's memory in bytes, shared pages divided by their users; 0 if it has ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
