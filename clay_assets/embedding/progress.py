"""Shows a run's progress on stderr: a bar on a terminal, else (it would flood a log) a line every 5 s."""

import sys
import time
from typing import Never, Self

from tqdm import tqdm

from clay_assets.results.outcomes import Outcome, Skipped


class Progress:
    """Counts a run's chips; the total grows as tiles are planned. Use as a context manager."""

    def __init__(self) -> None:
        self._total = self._done = self._skipped = 0  # chips
        self._tile = ""
        self._started = self._printed = time.monotonic()
        self._bar: tqdm[Never] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._done:
            self._say()

    def expect(self, chips: int) -> None:
        """Add to the number of chips that the run embeds."""
        self._total += chips
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.refresh()
        elif sys.stderr.isatty():
            self._bar = tqdm(total=self._total, unit="chip", file=sys.stderr)

    def begin(self, tile: str) -> None:
        """Set the tile of the next outcomes."""
        self._tile = tile
        if self._bar is not None:
            self._bar.set_description(tile)

    def count(self, outcome: Outcome) -> None:
        """Count one chip."""
        self._done += 1
        self._skipped += isinstance(outcome, Skipped)
        if self._bar is not None:
            self._bar.update()
        elif time.monotonic() - self._printed >= 5.0:
            self._say()

    def _say(self) -> None:
        self._printed = time.monotonic()
        rate = self._done / max(self._printed - self._started, 1e-9)
        remaining = (self._total - self._done) / rate
        skipped = f", {self._skipped} skipped" if self._skipped else ""
        counts = f"{self._done} of {self._total} chips{skipped}"
        line = f"{self._tile}: {counts}, {rate:.1f} chips/s, {remaining:.0f} s remaining"
        print(line, file=sys.stderr, flush=True)
