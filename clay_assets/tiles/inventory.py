"""Lists the chips of a tile, without reading any; keeps the list as `chip_inventory/{MGRS}.parquet`.

Functions raise StorageError if the store refuses.
"""

import io
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.chips import ChipName, ChipRejected
from clay_assets.parquet import DAMAGE, TILE, damaged
from clay_assets.storage import ObjectMissing, Store, StoredObject, SystemicError
from clay_assets.tiles import TILE_CODE

CHIP_SUFFIXES = (".tif", ".tiff")
NUMBERS = 10**18  # larger than any chip number within a tile and date

# One row per listed chip, in the order of date, then chip number; size in bytes.
COLUMNS = {"source_url": pa.string(), "size": pa.int64(), "etag": pa.string()}
INVENTORY = pa.schema([pa.field(name, kind, nullable=False) for name, kind in COLUMNS.items()])


class InventoryMissing(LookupError):
    """A tile has no readable inventory."""


class NoTiles(SystemicError):
    """No tile has a folder in the store of chips: its address is wrong."""


class Inventory(NamedTuple):
    """The objects under a tile's folder."""

    # GeoTIFFs in the order of date, then chip number, by their names. Those whose name is not a chip's come
    # last; reading one records a skip.
    chips: tuple[StoredObject, ...]
    others: tuple[StoredObject, ...]  # of other kinds (side files, manifests), which are ignored


def list_chips(store: Store, tile: str) -> Inventory:
    """List a tile, with one LIST request per 1,000 objects; empty if it has no folder."""
    return inventory_of(store.list(f"{tile}/"))


def inventory_of(found: Sequence[StoredObject]) -> Inventory:
    """Sort a tile's listed objects into chips and others. Parses each name: 8 µs a chip."""
    chips = [item for item in found if item.url.lower().endswith(CHIP_SUFFIXES)]
    others = [item for item in found if not item.url.lower().endswith(CHIP_SUFFIXES)]
    return Inventory(tuple(sorted(chips, key=_order)), tuple(others))


def _order(chip: StoredObject) -> int:
    """Sort key: date, then chip number. One integer, as tuples would take 100 MB for a million chips."""
    try:
        name = ChipName.parse(chip.url)
    except ChipRejected:
        return date.max.toordinal() * NUMBERS
    return name.date.toordinal() * NUMBERS + name.number


def require_tiles(store: Store) -> None:
    """Raise `NoTiles` unless a tile has a folder: distinguishes tiles without chips from a wrong address."""
    if not any(TILE_CODE.fullmatch(name) for name in store.folders()):
        raise NoTiles(
            f"no tile has a folder under {store.uri}: expected folders named by MGRS codes such as 27WXN."
            " Check CLAY_CHIPS_URI"
        )


def inventory_key(tile: str) -> str:
    """Return the key of a tile's inventory in the work store."""
    return f"chip_inventory/{tile}.parquet"


def write_inventory(store: Store, tile: str, chips: Sequence[StoredObject]) -> None:
    """Store a tile's inventory, in place of an earlier one."""
    table = pa.table(
        [[chip.url for chip in chips], [chip.size for chip in chips], [chip.etag for chip in chips]],
        schema=INVENTORY.with_metadata({TILE: tile}),
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    store.write(inventory_key(tile), buffer.getvalue())


def read_inventory(store: Store, tile: str) -> list[StoredObject]:
    """Return the stored inventory of a tile.

    Raises InventoryMissing if there is none, or it is damaged, of another version or of another tile.
    """
    where, again = store.url(inventory_key(tile)), "materialize chip_inventory again"
    try:
        table = pq.read_table(io.BytesIO(store.read(inventory_key(tile))))
        table.validate(full=True)  # also checks that text is UTF-8
    except ObjectMissing:
        raise InventoryMissing(
            f"tile {tile} has no inventory at {where}: materialize chip_inventory first"
        ) from None
    except DAMAGE as error:
        raise InventoryMissing(
            f"the inventory of tile {tile} at {where} is damaged ({damaged(error)}): {again}"
        ) from error
    if table.schema != INVENTORY:
        columns = ", ".join(table.schema.names)
        raise InventoryMissing(
            f"the inventory of tile {tile} at {where} is of another version (columns {columns}): {again}"
        )
    stored_tile = (table.schema.metadata or {}).get(TILE.encode(), b"no tile").decode()
    if stored_tile != tile:
        raise InventoryMissing(f"the inventory at {where} is of {stored_tile}, expected {tile}: {again}")
    return list(map(StoredObject, *(column.to_pylist() for column in table.columns)))
