"""Names of published files: `27WXN_20200101_20231231_v001.gpq`."""

import re
from dataclasses import dataclass
from datetime import date

from clay_assets.tiles.code import TILE_PATTERN

_NAME = re.compile(
    rf"(?P<tile>{TILE_PATTERN})_(?P<first>[0-9]{{8}})_(?P<last>[0-9]{{8}})_v(?P<version>[0-9]{{3,}})\.gpq"
)


@dataclass(frozen=True)
class PublishedName:
    """A published file's name, parsed; `str()` returns the name."""

    tile: str  # MGRS, e.g. 27WXN
    first: date  # earliest acquisition among the rows
    last: date  # latest acquisition among the rows
    version: int  # CLAY_VERSION, 0 or more

    def __str__(self) -> str:
        return f"{self.tile}_{self.first:%Y%m%d}_{self.last:%Y%m%d}_v{self.version:03}.gpq"


def published_name(tile: str, first: date, last: date, version: int) -> str:
    """Return the file name of a tile's embeddings.

    Raises:
        ValueError: `parse_published_name` could not parse the name.
    """
    parts = PublishedName(tile, first, last, version)
    name = str(parts)
    if parse_published_name(name) != parts:
        raise ValueError(
            f"got tile {tile!r}, dates {first} to {last} and version {version}: no file name ({name}). "
            "Expected an MGRS tile such as 27WXN, a first date not after the last, and a version of 0 or more"
        )
    return name


def parse_published_name(name: str) -> PublishedName | None:
    """Parse a file name (without folders); return None if it is not a published file's name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        first, last = (date.fromisoformat(match[part]) for part in ("first", "last"))
    except ValueError:  # eight digits that are not a date, such as 20200230
        return None
    return PublishedName(match["tile"], first, last, int(match["version"])) if first <= last else None
