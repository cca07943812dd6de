"""What lies in the cluster's bucket: twenty-four tiles of four small chips, all of them good."""

from clay_assets.storage import Store
from clay_assets_tests.geotiffs import chip_name
from rehearsal.scene import DATES, assemble_cast, make_chip

TILES = assemble_cast().tiles[:24]

CHIPS = 2
"""Chips of a tile on each date."""


def write_chips(store: Store) -> None:
    """Put every tile's chips into the bucket."""
    for tile in TILES:
        for date in DATES:
            for number in range(1, CHIPS + 1):
                name = chip_name(number, tile=tile, date=date)
                store.write(f"{tile}/{date}/{name}", make_chip(tile, number, date))
