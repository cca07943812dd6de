"""Names of published files: `27WXN_20200101_20231231_v001.gpq`.

Here belong building such a name and taking one apart, so that an earlier file of the same tile and version is
found whatever its dates. Listing, replacing and deleting files belong to the asset that publishes.
"""

import re
from dataclasses import dataclass
from datetime import date

from clay_assets.tiles.code import TILE_PATTERN

PUBLISHED_NAME = re.compile(
    rf"(?P<tile>{TILE_PATTERN})_(?P<first>[0-9]{{8}})_(?P<last>[0-9]{{8}})_v(?P<version>[0-9]{{3,}})\.gpq"
)
"""For `fullmatch`: MGRS tile, earliest and latest acquisition (YYYYMMDD), version of three digits or more."""


@dataclass(frozen=True)
class PublishedName:
    """What a published file's name says; `str()` gives the name back."""

    tile: str  # MGRS, e.g. 27WXN
    first: date  # earliest acquisition among the rows
    last: date  # latest acquisition among the rows
    version: int  # CLAY_VERSION, 0 or more

    def __str__(self) -> str:
        return f"{self.tile}_{self.first:%Y%m%d}_{self.last:%Y%m%d}_v{self.version:03}.gpq"


def published_name(tile: str, first: date, last: date, version: int) -> str:
    """Return the file name of a tile's embeddings.

    Args:
        tile: MGRS code, e.g. 27WXN.
        first: earliest acquisition among the file's rows.
        last: latest acquisition among the file's rows.
        version: of the published data, 0 or more.

    Raises:
        ValueError: what came out is not a name that `parse_published_name` would recognise.
    """
    wanted = PublishedName(tile, first, last, version)
    name = str(wanted)
    if parse_published_name(name) != wanted:
        raise ValueError(
            f"got tile {tile!r}, dates {first} to {last} and version {version}: no file name ({name}). "
            "Expected an MGRS tile such as 27WXN, a first date not after the last, and a version of 0 or more"
        )
    return name


def parse_published_name(name: str) -> PublishedName | None:
    """Take a file name (no folder) apart; None where it is not a published file's name."""
    match = PUBLISHED_NAME.fullmatch(name)
    if match is None:
        return None
    try:
        first, last = (date.fromisoformat(match[part]) for part in ("first", "last"))
    except ValueError:  # eight digits that are no day, such as 20200230
        return None
    if first > last:
        return None
    return PublishedName(match["tile"], first, last, int(match["version"]))
