import re
from datetime import date
from pathlib import Path

import pytest

from clay_assets.chips import read_chip
from clay_model.spec import V15

PROJECT = Path(__file__).parents[1]
PAGES = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_chip_that_the_documentation_writes_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (recipe,) = re.findall(r"```python\n(.*?)```", (PROJECT / "docs/chips.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})  # noqa: S102 - our own
    (path,) = tmp_path.iterdir()
    chip = read_chip(path.read_bytes(), path.name, spec=V15, tile="27WXN")
    assert (chip.date, chip.pixels.shape, chip.nodata) == (date(2020, 6, 15), (10, 256, 256), 0)
    assert chip.windows[0].lonlat == pytest.approx((-21.0, 64.9), abs=0.1)
