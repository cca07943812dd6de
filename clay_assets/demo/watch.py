"""Runs a command with its output in a file, and shows how far it is: a bar on a terminal, lines elsewhere.

Dagster captures what an asset prints, so the pipeline sees no terminal and prints a line every few seconds.
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
"""What the pipeline prints while it embeds: chips done, and of how many."""

INTERVAL_S = 0.2
"""Between two looks at the output."""


def watch(tile: str, log: Path, command: Sequence[str]) -> int:
    """Run a command that embeds a tile.

    Args:
        tile: MGRS code.
        log: The file that gets the command's output.
        command: Program and arguments.

    Returns:
        Its exit status; where it is not 0, all of the output is on stderr.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = sys.stderr.isatty()
    with (
        log.open("w") as output,
        log.open(errors="replace") as lines,
        tqdm(desc=f"tile {tile}", bar_format="{desc}: starting, {elapsed}", leave=False, disable=not terminal) as bar,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process,  # noqa: S603
    ):
        while process.poll() is None:
            time.sleep(INTERVAL_S)
            _show(lines.read(), tile, bar)
    said = log.read_text(errors="replace")
    if process.returncode:
        print(said, file=sys.stderr)
    elif summary := re.search(rf"tile {tile}: .*", said):
        print(summary[0])
    return process.returncode


def _show(said: str, tile: str, bar: "tqdm[None]") -> None:
    """Bring the bar up to date, or print the last line of progress."""
    *_, last = [None, *PROGRESS.finditer(said)]
    if last:
        bar.n, bar.total = int(last[1]), int(last[2])
        bar.bar_format = "{desc}: {percentage:3.0f}%|{bar:30}| {n}/{total} chips, {elapsed}"
        if bar.disable:
            print(f"tile {tile}: {last[1]} of {last[2]} chips", file=sys.stderr, flush=True)
    bar.refresh()
