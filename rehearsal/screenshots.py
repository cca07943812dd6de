"""Pictures of the Dagster UI, taken by headless Chromium over its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from websockets.sync.client import ClientConnection, connect

from rehearsal.servers import find_program, free_port, running

PATIENCE_S = 45
"""For a page to show what it is opened for."""

SETTLE_S = 2.0
"""For a page to finish drawing once its text is there: the asset graph is laid out in a worker."""


def chromium() -> Path:
    """The browser.

    Raises:
        MissingPackage: If it is not installed.
    """
    return find_program("chromium", "chromium")


class Page:
    """One browser tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    def command(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send one command of the protocol and wait for its answer.

        Raises:
            RuntimeError: If the browser refuses it.
        """
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:  # events come in between
            answer = json.loads(self._connection.recv(timeout=PATIENCE_S))
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str, *, shows: str, width: int = 1500, height: int = 900) -> None:
        """Open a page and wait until a text stands on it.

        Args:
            url: A page on loopback.
            shows: The text.
            width: Of the window, pixels.
            height: Of the window, pixels.

        Raises:
            TimeoutError: If the text does not appear.
        """
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        self.command("Page.navigate", url=url)
        self.wait_for(shows)

    def wait_for(self, text: str) -> None:
        """Wait until a text stands on the page.

        Raises:
            TimeoutError: If it does not appear.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not self._evaluate(
            f"document.body !== null && document.body.innerText.includes({json.dumps(text)})"
        ):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"“{text}” has not appeared; the page says:\n{self._evaluate('document.body.innerText')}"
                )
            time.sleep(0.2)
        time.sleep(SETTLE_S)

    def click(self, text: str, *, after: str) -> None:
        """Click the first element with exactly this text that follows one with the text `after`.

        Raises:
            RuntimeError: If there is none.
        """
        script = """(([text, after]) => {
            const leaves = [...document.querySelectorAll("*")].filter(e => e.children.length === 0);
            const start = leaves.findIndex(e => e.textContent.trim() === after);
            const target = leaves.slice(Math.max(start, 0)).find(e => e.textContent.trim() === text);
            if (target) target.click();
            return Boolean(target);
        })"""
        if not self._evaluate(f"{script}({json.dumps([text, after])})"):
            raise RuntimeError(f"there is no “{text}” after “{after}” to click")
        time.sleep(SETTLE_S)

    def save(self, target: Path) -> None:
        """Save what a person would see as a PNG file."""
        picture = self.command("Page.captureScreenshot", format="png")
        target.write_bytes(base64.b64decode(picture["data"]))

    def _evaluate(self, expression: str) -> Any:  # noqa: ANN401 - whatever the script gives
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")


@contextmanager
def browsing() -> Iterator[Page]:
    """A headless browser for the length of the block; yields its tab."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        command = [str(chromium()), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic"]
        command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
        command += ["--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}/data"]
        command += [f"--remote-debugging-port={port}", "about:blank"]
        browser = running(
            "Chromium",
            command,
            log=Path(profile) / "log",
            ready=lambda: bool(_tabs(port)),
            environment=os.environ,
            cwd=Path(profile),
        )
        # A screenshot of a long page is a message of megabytes.
        with browser, connect(_tabs(port)[0]["webSocketDebuggerUrl"], max_size=None) as connection:
            yield Page(connection)


def _tabs(port: int) -> list[dict[str, Any]]:
    try:
        tabs = requests.get(f"http://127.0.0.1:{port}/json", timeout=2).json()
    except (requests.RequestException, ValueError):
        return []
    return [tab for tab in tabs if tab["type"] == "page"]
