"""Reads thousands of damaged files: `python -m clay_assets_tests.chips.fuzz --mutants 200000`.

Checks the outcomes; `mutants` makes the files. Each batch runs in its own process, so that crashes, hangs and
output are detected. The number of a mutant reproduces it.
"""

import argparse
import faulthandler
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clay_assets.chips import ChipRejected, read_chip
from clay_assets.chips.directory import Directory
from clay_assets.chips.geotiff import read_header
from clay_assets_tests.chips.mutants import Mutant, bases, mutant
from clay_assets_tests.geotiffs import chip_name, read_with_rasterio

HANG = 5.0
"""Limit of CPU seconds per file."""

DEADLOCK = 60.0
"""Seconds after which a file that uses no CPU counts as deadlocked. Not five: with ten processes on two
cores, 0.9 s of CPU took 6.3 s."""

MEMORY = 2 * 13 * 512 * 512 * 4
"""Bytes of memory that damaged files may need beyond what the good ones need: two chips of float32."""

BATCH = 2_500
"""Mutants per process."""


@dataclass
class Found:
    """Outcomes of a batch.

    Attributes:
        reasons: Number of mutants by reason of refusal, or "embedded".
        unchanged: Embedded mutants with the pixels of their original.
        failures: Descriptions of violations.
        slowest: CPU seconds of the slowest file.
        memory: Bytes of memory beyond what the good files need.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    unchanged: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    memory: int = 0

    def add(self, other: "Found") -> None:
        """Add another batch."""
        self.reasons += other.reasons
        self.unchanged += other.unchanged
        self.failures += other.failures
        self.slowest = max(self.slowest, other.slowest)
        self.memory = max(self.memory, other.memory)


def fuzz(numbers: range, processes: int = 2) -> Found:
    """Read the mutants of these numbers.

    Args:
        numbers: Numbers of the mutants.
        processes: Number of concurrent processes.
    """
    batches = [numbers[start : start + BATCH] for start in range(0, len(numbers), BATCH)]
    found = Found()
    with ThreadPoolExecutor(processes) as pool:
        for batch in pool.map(_in_a_process, batches):
            found.add(batch)
    return found


def _in_a_process(numbers: range) -> Found:
    """Run a batch; restart it after a mutant that ends the process."""
    found, start = Found(), numbers.start
    while start < numbers.stop:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "number"
            ends = [str(start), str(numbers.stop)]
            command = [sys.executable, "-m", __spec__.name, "--batch", *ends, str(place)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                batch = json.loads(done.stdout)
                found.add(Found(**{**batch, "reasons": Counter(batch["reasons"])}))
                start = numbers.stop
            else:
                last = int(place.read_text() or start)
                found.failures.append(f"mutant {last} ended the process ({done.returncode})")
                start = last + 1
            if done.stderr:
                found.failures.append(f"stderr of {numbers.start} to {numbers.stop}: {done.stderr[:2000]}")
    return found


def _batch(numbers: range, place: Path) -> Found:
    """Read the mutants of one process; the file `place` has the number of the current one."""
    for base in bases():
        read_chip(base.data, chip_name(), spec=base.spec)
        read_with_rasterio(base.data)
    found, usual = Found(), _memory_from_now_on()
    with place.open("r+b" if place.exists() else "w+b", buffering=0) as file:
        for number in numbers:
            os.pwrite(file.fileno(), f"{number}".encode(), 0)
            made = mutant(number)
            faulthandler.dump_traceback_later(DEADLOCK, exit=True)
            began = time.process_time()
            pixels = _read(number, made, found)
            seconds = time.process_time() - began
            faulthandler.cancel_dump_traceback_later()
            found.slowest = max(found.slowest, seconds)
            if seconds > HANG:
                found.failures.append(f"mutant {number} ({made.how}) took {seconds:.1f} s")
            if pixels is not None:
                _check(number, made, pixels, found)
    found.memory = _peak() - usual
    return found


def _read(number: int, made: Mutant, found: Found) -> np.ndarray | None:
    try:
        chip = read_chip(made.data, made.name, spec=made.base.spec)
    except ChipRejected as refusal:
        found.reasons[refusal.reason] += 1
        if not str(refusal).isprintable():
            found.failures.append(f"mutant {number} ({made.how}): a message of more than a line: {refusal!r}")
        return None
    except Exception as error:
        found.reasons[type(error).__name__] += 1
        found.failures.append(f"mutant {number} ({made.how}): {type(error).__name__}: {error}")
        return None
    found.reasons["embedded"] += 1
    return chip.pixels


def _check(number: int, made: Mutant, pixels: np.ndarray, found: Found) -> None:
    """Check that the pixels are those of the file, and that its checksums match."""
    same = bool(np.array_equal(pixels, made.base.pixels))
    found.unchanged += same
    if made.only_pixels and made.base.deflated and not same:
        found.failures.append(f"mutant {number}: damaged pixels are embedded")
    elif not same:
        try:
            oracle = read_with_rasterio(made.data)[: len(pixels)].astype(np.float32)
        except Exception as error:
            found.failures.append(f"mutant {number} ({made.how}): read, and not by rasterio: {error}")
            return
        if not np.array_equal(oracle, pixels) and not _is_permuted(oracle, pixels):
            found.failures.append(f"mutant {number} ({made.how}): other pixels than rasterio's")
        elif read_header(made.data).compression == "DEFLATE" and not _checksums_hold(made.data):
            found.failures.append(f"mutant {number} ({made.how}): embedded despite a wrong checksum")


def _is_permuted(oracle: np.ndarray, pixels: np.ndarray) -> bool:
    """Whether the bands differ only in order, as they do if the file names them."""
    return {band.tobytes() for band in oracle} >= {band.tobytes() for band in pixels}


def _checksums_hold(data: bytes) -> bool:
    """Whether Python's zlib also reads each block up to a valid checksum."""
    blocks = Directory(data).blocks()
    for start, count in zip(blocks.offsets.tolist(), blocks.counts.tolist(), strict=True):
        stream = zlib.decompressobj()
        try:
            stream.decompress(data[start : start + count], 1 << 28)
        except zlib.error:
            return False
        if count and not stream.eof:
            return False
    return True


def _memory_from_now_on() -> int:
    """Reset the peak if the system can (Linux), and return it."""
    resets = Path("/proc/self/clear_refs")
    if resets.exists():
        resets.write_text("5")
    return _peak()


def _peak() -> int:
    """Peak memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read mutants and print the outcomes as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mutants", type=int, default=200_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.batch:
        first, end, place = options.batch
        print(json.dumps(vars(_batch(range(int(first), int(end)), Path(place)))))
        return 0
    began = time.monotonic()
    found = fuzz(range(options.first, options.first + options.mutants), options.processes)
    print(json.dumps({**vars(found), "seconds": round(time.monotonic() - began)}, indent=2))
    return bool(found.failures)


if __name__ == "__main__":
    sys.exit(main())
