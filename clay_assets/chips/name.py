"""Parses a chip's file name: tile, date, version, number.

The inventory is made from names, before any chip is read; `rejection` compares the file's tags with its name.
"""

import datetime
import re
from dataclasses import dataclass
from typing import Self

from clay_assets.chips.rejection import ChipRejected, quoted
from clay_assets.tiles.code import TILE_PATTERN

CHIP_NAME = re.compile(rf"claytile_({TILE_PATTERN})_([0-9]{{8}})_v([0-9]{{2,}})_([0-9]{{4,}})\.tif")


@dataclass(frozen=True)
class ChipName:
    """A parsed file name.

    Attributes:
        tile: MGRS tile, e.g. 27WXN.
        date: Day of acquisition.
        version: Version of the chips' processing, e.g. 02.
        number: Position within tile and date.
    """

    tile: str
    date: datetime.date
    version: str
    number: int

    @classmethod
    def parse(cls, name: str, *, tile: str | None = None) -> Self:
        """Parse a file name; folders before it are ignored.

        Args:
            name: File name or URL.
            tile: The tile that it must name; None: any tile.

        Raises:
            ChipRejected: With reason `name`.
        """
        base = name.rsplit("/", 1)[-1]
        match = CHIP_NAME.fullmatch(base)
        if match is None:
            raise ChipRejected(
                "name",
                f"is named {quoted(base)}, expected claytile_{{MGRS}}_{{YYYYMMDD}}_v{{VV}}_{{NNNN}}.tif",
            )
        found, day, version, number = match.groups()
        if tile is not None and found != tile:
            raise ChipRejected(
                "name", f"is named {quoted(base)}, expected a chip of tile {tile}, like its folder"
            )
        try:
            date = datetime.date.fromisoformat(day)
        except ValueError as error:
            raise ChipRejected(
                "name", f"is named {quoted(base)}, expected a day of the calendar: {error}"
            ) from error
        return cls(tile=found, date=date, version=version, number=int(number))
