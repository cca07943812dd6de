"""Runs a command with its output in a file, and shows how far it is: a bar on a terminal, lines elsewhere.

Dagster captures what an asset prints, so the pipeline finds no terminal and prints a line every few seconds.
Here these lines become a bar again.
"""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

PROGRESS = re.compile(r"\b(\d+)(?: of |/)(\d+)(?: chips|\b.*chip/s)")
"""What the pipeline prints while it embeds: chips done, and of how many; in words, or as tqdm does."""

STARTING = "{desc}: starting, {elapsed}"
EMBEDDING = "{desc}: {percentage:3.0f}%|{bar:30}| {n}/{total} chips, {elapsed}"

INTERVAL_S = 0.2
"""Between two looks at the output."""


def watch(tile: str, log: Path, command: Sequence[str]) -> int:
    """Run a command that embeds a tile.

    Args:
        tile: MGRS code.
        log: The file that gets the command's output.
        command: Program and arguments.

    Returns:
        Its exit status; if it is not 0, all of the output is on stderr.
    """
    quiet = not sys.stderr.isatty()
    with (
        log.open("w") as output,
        log.open(errors="replace") as lines,
        tqdm(desc=f"tile {tile}", bar_format=STARTING, leave=False, disable=quiet) as bar,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process,  # noqa: S603 - asked for
    ):
        ended = False
        while not ended:
            time.sleep(INTERVAL_S)
            ended = process.poll() is not None  # asked first, so that the last lines are read too
            for done, total in PROGRESS.findall(lines.read())[-1:]:
                bar.n, bar.total, bar.bar_format = int(done), int(total), EMBEDDING
                if quiet:
                    print(f"tile {tile}: {done} of {total} chips", file=sys.stderr, flush=True)
            bar.refresh()
    said = log.read_text(errors="replace")
    if process.returncode:
        print(said, file=sys.stderr)
    elif summary := re.search(rf"tile {tile}: .*", said):
        print(summary[0], flush=True)
    return process.returncode
