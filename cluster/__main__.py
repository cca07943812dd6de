"""Runs the cluster: `python -m cluster`. It prints only what it has checked."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from cluster.machines import Machines
from cluster.measuring import WORKERS, measure
from cluster.network import INSIDE, move_into_namespaces, switched_network, why_not_namespaces
from cluster.play import Cluster
from rehearsal import servers

TIMEOUT_S = 1200
"""For everything."""


def main(arguments: Sequence[str]) -> int:
    """Run the cluster and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="CPU seconds per tile with 1, 2 and 3 workers")
    parser.add_argument("--loopback", action="store_true", help="use no namespaces")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    # A shell's background job ignores SIGINT, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGALRM, _give_up)
    try:
        servers.find_postgres()
    except servers.MissingPackage as error:
        print(error, file=sys.stderr)
        return 2
    if not options.inside:
        obstacle = "--loopback" if options.loopback else why_not_namespaces()
        if not obstacle:
            move_into_namespaces(arguments)
        print(f"no network namespaces ({obstacle}): all hosts are this machine, on loopback", flush=True)
    signal.alarm(TIMEOUT_S)
    try:
        _run(inside=options.inside, measuring=options.measure)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _run(*, inside: bool, measuring: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="clay-cluster-", dir="/tmp") as folder, ExitStack() as stack:
        # In /tmp: the path of a socket has at most 107 characters, and Ray's are long.
        address = stack.enter_context(switched_network()) if inside else servers.LOOPBACK
        machines = Machines(Path(folder), address, stack)
        if measuring:
            measure(Cluster(machines, WORKERS))
        else:
            Cluster(machines).play()


def _give_up(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"the cluster has not finished within {TIMEOUT_S} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
