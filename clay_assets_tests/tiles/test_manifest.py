from contextlib import nullcontext
from pathlib import Path

import pytest

from clay_assets.chips import ChipName, ChipRejected
from clay_assets.publishing.schema import parse_published_name
from clay_assets.tiles import TILE_CODE
from clay_assets.tiles.manifest import ManifestError, read_tiles


def manifest(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "tiles.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_tiles_are_sorted_and_unique(tmp_path: Path) -> None:
    text = "# Iceland\n27WXN\n\n  27WXM  # the south\r\n18HYB\n27WXN\n#36MXB\n"

    assert read_tiles(manifest(tmp_path, text)) == ["18HYB", "27WXM", "27WXN"]


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert read_tiles(manifest(tmp_path, b"\xef\xbb\xbf27WXN\r\n")) == ["27WXN"]


@pytest.mark.parametrize(
    "code",
    [
        *("00WXN", "61WXN", "7WXN", "27IXN", "27OXN", "27AXN", "27YXN", "27WIN", "27WXO", "27WXW"),
        *("27wxn", "27WXN1", "27 WXN", "T27WXN", "27WXN,27WXM", "../etc"),
    ],
)
def test_invalid_line_is_refused_with_its_number(tmp_path: Path, code: str) -> None:
    with pytest.raises(ManifestError, match=r"has 1 lines that are not tiles") as caught:
        read_tiles(manifest(tmp_path, f"27WXN\n{code}\n"))

    assert f"line 2: {code!r}" in str(caught.value)


def test_all_bad_lines_are_counted_and_the_first_ten_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="has 12 lines that are not tiles") as caught:
        read_tiles(manifest(tmp_path, "nowhere\n" * 12))

    assert "line 10: 'nowhere'\n  and 2 more" in str(caught.value)
    assert "line 11" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", "# later\n"])
def test_manifest_without_tiles_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ManifestError, match=r"tiles\.txt names no tile: write one MGRS code per line"):
        read_tiles(manifest(tmp_path, text))


def test_missing_manifest_explains_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no tile manifest at \S+none\.txt: .*clay tiles .*CLAY_TILES"):
        read_tiles(tmp_path / "none.txt")


@pytest.mark.parametrize("content", [b"\xff\xfe2\x007\x00", None], ids=["UTF-16", "a folder"])
def test_manifest_that_is_not_text_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path if content is None else manifest(tmp_path, content)

    with pytest.raises(ManifestError, match="cannot be read as a text file of tiles"):
        read_tiles(path)


@pytest.mark.parametrize(
    ("tile", "known"),
    [
        *[("27WXN", True), ("60CAV", True), ("01XZA", True), ("00WXN", False), ("61WXN", False)],
        *[("27IXN", False), ("27WON", False), ("27WXW", False), ("27YXN", False), ("7WXNN", False)],
    ],
)
def test_manifest_chips_and_published_files_accept_the_same_tiles(tile: str, known: bool) -> None:
    assert bool(TILE_CODE.fullmatch(tile)) == known
    assert bool(parse_published_name(f"{tile}_20200615_20210703_v001.gpq")) == known
    with nullcontext() if known else pytest.raises(ChipRejected):
        ChipName.parse(f"claytile_{tile}_20200615_v02_0001.tif")
