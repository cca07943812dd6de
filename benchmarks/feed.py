"""The rate at which chips reach a device: listing → fetch → decode → batch in host memory, without a network.

The pipeline is `ChipStream` as an asset runs it, with an embedder that computes nothing. The chips come from
an HTTPS server on loopback, in a process of its own that shares the cores, with a certificate made for the
run. Printed for the feeding process:

- chips per second, CPU seconds per chip, and the busiest thread (/proc/self/task);
- seconds per chip in which a thread held the GIL, which more cores do not shorten. py-spy samples a second
  run from outside. That run takes one chip at a time, because a thread that holds the GIL while it waits for
  a core would count as computing. `--validate` samples a loop that holds the GIL for a known share of the
  time; on a busy machine it appears to hold the GIL longer, and so does the feed.

`--table` projects the rates of other machines.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch
import trustme

from benchmarks.chip_server import serving_chips
from benchmarks.feed_gil import HELD, RATE, ROUNDS, hold_the_gil, is_feeding, print_holders, sampled
from benchmarks.feed_table import print_table
from benchmarks.measure import clean_environment
from clay_assets.demo.chips import CHILE, write_chips
from clay_assets.embedding.stream import ChipStream
from clay_assets.storage import Store
from clay_model.spec import V0, Level

TILE = "18HYB"
DISTINCT = 8  # chips written; the server gives them many names


@dataclass(frozen=True)
class Feed:
    """The results of one run.

    Attributes:
        chips: Number of chips fed.
        chips_per_s: Rate from the first request to the last batch.
        cpu_per_chip: CPU seconds of the process.
        mb_per_chip: Size of the file.
        busiest: Name of the thread, other than the decoders (one per core), that used most CPU.
        busiest_s_per_gb: Its CPU seconds per GB fetched.
        gil_per_chip: Seconds in which the feeding threads held the GIL; None if not sampled.
    """

    chips: int
    chips_per_s: float
    cpu_per_chip: float
    mb_per_chip: float
    busiest: str
    busiest_s_per_gb: float
    gil_per_chip: float | None = None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chips", type=int, default=600)
    parser.add_argument("--table", action="store_true", help="project to other machines")
    parser.add_argument("--validate", action="store_true", help="sample the known case and stop")
    parser.add_argument(
        "--processes", type=int, default=1, help="feed as many, each on its share of the cores"
    )
    parser.add_argument("--feed", nargs=2, metavar=("URI", "RESULT"), help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--known-case", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.known_case:
        return hold_the_gil()
    if arguments.feed:
        return _feed(*arguments.feed, alone=arguments.alone)
    with tempfile.TemporaryDirectory(prefix="clay-feed-") as folder:
        root = Path(folder)
        if arguments.validate:
            stacks = sampled(["--known-case"], os.environ, root)
            held = sum(count for stack, count in stacks.items() if "hold_the_gil" in stack) / RATE
            print(f"known case: {ROUNDS * HELD:.2f} s held, {held:.2f} s sampled")
            return None
        write_chips(root / "chips", CHILE, DISTINCT, span=512)
        with _serving(root, arguments.chips) as environment:
            if arguments.processes > 1:
                return _print_sum(arguments.processes, environment, root)
            command = ["--feed", "s3://chips", str(root / "feed.json")]
            subprocess.run([sys.executable, "-m", "benchmarks.feed", *command], env=environment, check=True)
            feed = json.loads((root / "feed.json").read_text())
            stacks = sampled([*command, "--alone"], environment, root)
        print_holders(stacks, arguments.chips)
        held = sum(count for stack, count in stacks.items() if is_feeding(stack)) / RATE
        found = Feed(**{**feed, "gil_per_chip": held / arguments.chips})
        print(json.dumps({"benchmark": "feed", "cores": os.cpu_count(), **asdict(found)}))
        if arguments.table:
            print_table(found.cpu_per_chip, held / arguments.chips, found.mb_per_chip)
    return None


def _print_sum(count: int, environment: Mapping[str, str], root: Path) -> None:
    """Feed from several processes at once; print the sum of their rates."""
    cores = sorted(os.sched_getaffinity(0))
    results = [root / f"feed-{number}.json" for number in range(count)]
    running = []
    for number, result in enumerate(results):
        share = ",".join(str(core) for core in cores[number % len(cores) :: count])
        command = ["taskset", "--cpu-list", share, sys.executable, "-m", "benchmarks.feed"]
        running.append(subprocess.Popen([*command, "--feed", "s3://chips", str(result)], env=environment))
    if any(process.wait() for process in running):
        raise SystemExit("a feeding process failed")
    rates = [json.loads(result.read_text())["chips_per_s"] for result in results]
    print(json.dumps({"benchmark": "feed", "processes": count, "chips_per_s": sum(rates), "each": rates}))


# The measured process.


class _NoEncoder:
    """Replaces an embedder and computes nothing.

    PyTorch's "meta" device has no memory: batches are assembled without the conversion to float32, which is
    the encoder's work on a CPU (6 ms a chip) and the device's on a GPU.
    """

    device = torch.device("meta")
    dimensions = SimpleNamespace(dim=768)
    spec = V0

    def context(self, lonlat: Sequence[object], _: object) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(lonlat), 2), torch.zeros(len(lonlat), 3)

    def encode(self, pixels: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.zeros(len(pixels), self.dimensions.dim)


def _feed(uri: str, result: str, *, alone: bool) -> None:
    store = Store(uri)
    level: Level = "mean"
    embedders = [_NoEncoder()]
    workers = {"fetchers": 1, "decoders": 1} if alone else {"decoders": len(os.sched_getaffinity(0))}
    for warming in (True, False):
        started, cpu, before = time.perf_counter(), time.process_time(), _thread_seconds()
        chips = store.list(f"{TILE}/")[: 2 * DISTINCT if warming else None]
        threads = _Threads()
        with ChipStream(
            read=store.read,
            embedders=embedders,  # type: ignore[arg-type] # all that the stream uses of one
            level=level,
            batch_size=16,
            **workers,
        ) as stream:
            stream.add(TILE, chips)
            stream.finish()
            count = len(list(stream.results(TILE)))
            seconds = threads.stop()
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    spent = {task: (name, used - before.get(task, ("", 0.0))[1]) for task, (name, used) in seconds.items()}
    single = (entry for entry in spent.values() if not entry[0].startswith("decode_"))
    busiest, used = max(single, key=lambda entry: entry[1])
    gb = sum(chip.size for chip in chips) / 1e9
    feed = Feed(count, count / wall, cpu / count, 1e3 * gb / count, busiest, used / gb)
    Path(result).write_text(json.dumps(asdict(feed)))


class _Threads(threading.Thread):
    """Collects the CPU seconds of all threads, including those that end before the run."""

    def __init__(self) -> None:
        super().__init__(name="watch", daemon=True)
        self._seen: dict[int, tuple[str, float]] = {}
        self._stopped = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopped.wait(0.5):
            self._seen |= _thread_seconds()

    def stop(self) -> dict[int, tuple[str, float]]:
        """Return name and seconds of each."""
        self._stopped.set()
        self.join()
        return self._seen | _thread_seconds()


def _thread_seconds() -> dict[int, tuple[str, float]]:
    """Return name and CPU seconds of each thread of this process."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = {}
    for task in psutil.Process().threads():
        with suppress(OSError):  # the thread has ended
            name = names.get(task.id) or Path(f"/proc/self/task/{task.id}/comm").read_text().strip()
            found[task.id] = (name, task.user_time + task.system_time)
    return found


@contextmanager
def _serving(root: Path, count: int) -> Iterator[dict[str, str]]:
    """Run an HTTPS server of chips; yield the environment of a process that uses and trusts it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(root / "authority.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(root / "server.pem"))
    options = ("--folder", root / "chips", "--certificate", root / "server.pem")
    with serving_chips(count, *options) as port:
        yield {
            **clean_environment(),
            "AWS_ENDPOINT_URL_S3": f"https://127.0.0.1:{port}",
            "AWS_CA_BUNDLE": str(root / "authority.pem"),
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "us-east-1",
        }


if __name__ == "__main__":
    main()
