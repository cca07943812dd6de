"""Runs the rehearsal: `python -m rehearsal`. It prints only what it has checked."""

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rehearsal import servers
from rehearsal.backend import PROJECT
from rehearsal.play import Rehearsal
from rehearsal.screenshots import chromium


def main() -> int:
    """Run the rehearsal and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal", description=__doc__)
    parser.add_argument(
        "--pictures", type=Path, default=PROJECT / "build/pictures", help="folder for screenshots"
    )
    parser.add_argument("--keep", action="store_true", help="keep the servers running until Enter is pressed")
    options = parser.parse_args()
    # A shell's background job ignores SIGINT, and so would its children: Dagster's runs stop the processes
    # that follow their logs by SIGINT, and would wait half a minute for each.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        chromium()
        servers.find_postgres()
    except servers.MissingPackage as error:
        print(error, file=sys.stderr)
        return 2
    options.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="clay-rehearsal-") as folder, ExitStack() as stack:
        rehearsal = Rehearsal(Path(folder), stack)
        rehearsal.play()
        rehearsal.take_pictures(options.pictures)
        if options.keep:
            input(f"{rehearsal.api.url} serves until Enter is pressed ")
        rehearsal.say("done: everything is as expected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
