"""Run a command and watch it: wall time, CPU time, peak memory of it and its children."""

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_S = 0.2


@dataclass(frozen=True)
class Measured:
    """What a command cost.

    Attributes:
        wall: Seconds from its start to its end.
        cpu: CPU seconds of it and its children.
        peak_mb: Largest sum of their proportional memory (shared pages counted once), MB; looked at five
            times a second.
        output: What it printed.
    """

    wall: float
    cpu: float
    peak_mb: float
    output: str


def measure(command: Sequence[str | Path], *, cwd: Path, environment: Mapping[str, str]) -> Measured:
    """Run a command to its end.

    Raises:
        RuntimeError: If it fails; the message has the end of what it printed.
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
    return Measured(wall, watch.cpu, watch.peak / 1e6, output)


class _Watch(threading.Thread):
    """Samples a process tree until it has ended.

    Proportional memory is what is wanted, but to add it up the kernel walks every page, 16 ms for 1.6 GB:
    five times a second that would slow down what is measured by several percent. So it is asked for only
    when the resident memory, which is known at once, is larger than ever before.
    """

    def __init__(self, process: psutil.Popen) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.peak = 0
        self._largest_resident = 0
        self._cpu: dict[int, float] = {}

    @property
    def cpu(self) -> float:
        """CPU seconds seen so far, each process at its last sample."""
        return sum(self._cpu.values())

    def run(self) -> None:
        while self._process.poll() is None:
            members = self._members()
            resident = 0
            for member in members:
                with suppress(psutil.Error):  # it ended between the listing and the look
                    resident += member.memory_info().rss
                    times = member.cpu_times()
                    self._cpu[member.pid] = times.user + times.system
            if resident > self._largest_resident:
                self._largest_resident = resident
                self.peak = max(self.peak, sum(map(_proportional, members)))
            time.sleep(SAMPLE_S)

    def _members(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.Error:
            return []


def _proportional(process: psutil.Process) -> int:
    """Bytes of a process's memory, each shared page divided by those who share it; 0 if it has ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
