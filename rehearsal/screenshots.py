"""Pictures of the Dagster UI, taken by headless Chromium."""

import subprocess
import tempfile
from pathlib import Path

from rehearsal.servers import find_program

WIDTH, HEIGHT = 1500, 1000

SETTLE_MS = 12_000
"""Virtual time that a page gets to fetch and draw; real time is less."""


def chromium() -> Path:
    """The browser.

    Raises:
        MissingPackage: If it is not installed.
    """
    return find_program("chromium", "chromium")


def take_screenshot(url: str, target: Path, *, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Open a page and save what a person would see.

    Args:
        url: A page on loopback.
        target: PNG file to write.
        width: Of the window, pixels.
        height: Of the window, pixels.

    Raises:
        RuntimeError: If the browser leaves no picture.
    """
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        command = [str(chromium()), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic"]
        command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
        command += ["--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}"]
        command += [f"--window-size={width},{height}", f"--virtual-time-budget={SETTLE_MS}"]
        command += [f"--screenshot={target.absolute()}", url]
        result = subprocess.run(command, capture_output=True, timeout=90, check=False)
    if not target.is_file():
        raise RuntimeError(f"Chromium saved no picture of {url}: {result.stderr.decode()[-500:]}")
