"""Pictures of the Dagster UI, by headless Chromium."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal.servers import find_program

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATIENCE_MS = 45_000
"""Time limit until a page shows a text."""

SETTLE_MS = 2_000
"""Time until a page is drawn after its text appears: a worker lays out the asset graph."""


def chromium() -> Path:
    """Return the path of the browser.

    Raises:
        MissingPackage: If it is not installed.
    """
    return find_program("chromium", "chromium")


@contextmanager
def browsing() -> Iterator["Page"]:
    """Open a tab of a headless browser."""
    from playwright.sync_api import sync_playwright  # only the pictures need it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


def take(
    page: "Page", target: Path, *, shows: str, url: str = "", click: tuple[str, str] | None = None
) -> None:
    """Save a picture of a page as PNG.

    Args:
        page: The tab.
        target: The file.
        shows: Text to wait for.
        url: Page to open; "": the one that is open.
        click: Texts of an element, and of the button to click after it; None: nothing.

    Raises:
        playwright.sync_api.TimeoutError: If the text does not appear or there is nothing to click.
    """
    if url:
        page.goto(url)
    if click:
        before, button = (f"*[not(*) and normalize-space()='{text}']" for text in click)
        page.locator(f"xpath=(//{before}/following::{button})[1]").click()
    page.get_by_text(shows).first.wait_for()
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=target)
