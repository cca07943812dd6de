"""Lists the chips of a tile, without reading any; keeps the list as `chip_inventory/{MGRS}.parquet`."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.chips import ChipName, ChipRejected
from clay_assets.parquet import DAMAGE, TILE, damaged
from clay_assets.storage import ObjectMissing, StorageError, Store, StoredObject
from clay_assets.tiles.code import TILE_CODE

CHIP_SUFFIXES = (".tif", ".tiff")

NUMBERS = 10**18
"""Larger than any chip number within a tile and date."""

INVENTORY = pa.schema(
    [
        pa.field("source_url", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # bytes
        pa.field("etag", pa.string(), nullable=False),
    ]
)
"""One row per listed chip, in the order of date, then chip number."""


class InventoryMissing(LookupError):
    """A tile has no readable inventory."""


class NoTiles(StorageError):
    """No tile has a folder in the store of chips: its address is wrong."""

    systemic = True


@dataclass(frozen=True)
class Inventory:
    """The objects under a tile's folder.

    Attributes:
        chips: GeoTIFFs in the order of date, then chip number, by their names. Those whose name is not a
            chip's come last; reading one records a skip.
        others: Objects of other kinds (side files, manifests), which are ignored.
    """

    chips: tuple[StoredObject, ...]
    others: tuple[StoredObject, ...] = ()


def list_chips(store: Store, tile: str) -> Inventory:
    """List a tile: one LIST request per 1,000 objects.

    Args:
        store: Holds one folder per tile.
        tile: MGRS code.

    Returns:
        The inventory; empty if the tile has no folder.

    Raises:
        StorageError: If the store cannot be listed.
    """
    return inventory_of(store.list(f"{tile}/"))


def inventory_of(found: Sequence[StoredObject]) -> Inventory:
    """Sort a tile's listed objects into chips and others. Parses each name: 8 µs a chip."""
    chips = [item for item in found if item.url.lower().endswith(CHIP_SUFFIXES)]
    others = tuple(item for item in found if not item.url.lower().endswith(CHIP_SUFFIXES))
    chips.sort(key=_order)
    return Inventory(tuple(chips), others)


def _order(chip: StoredObject) -> int:
    """Sort key: date, then chip number. One integer, as tuples would take 100 MB for a million chips."""
    try:
        name = ChipName.parse(chip.url)
    except ChipRejected:
        return date.max.toordinal() * NUMBERS
    return name.date.toordinal() * NUMBERS + name.number


def require_tiles(store: Store) -> None:
    """Raise unless a tile has a folder: distinguishes tiles without chips from a wrong address.

    Raises:
        NoTiles: If no tile has a folder.
        StorageError: If the store cannot be listed.
    """
    if not any(TILE_CODE.fullmatch(name) for name in store.folders()):
        raise NoTiles(
            f"no tile has a folder under {store.uri}: expected folders named by MGRS codes such as 27WXN."
            " Check CLAY_CHIPS_URI"
        )


def inventory_key(tile: str) -> str:
    """Return the key of a tile's inventory in the work store."""
    return f"chip_inventory/{tile}.parquet"


def write_inventory(store: Store, tile: str, chips: Sequence[StoredObject]) -> None:
    """Store a tile's inventory, in place of an earlier one.

    Raises:
        StorageError: If it cannot be stored.
    """
    table = pa.table(
        [[chip.url for chip in chips], [chip.size for chip in chips], [chip.etag for chip in chips]],
        schema=INVENTORY.with_metadata({TILE: tile}),
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    store.write(inventory_key(tile), buffer.getvalue())


def read_inventory(store: Store, tile: str) -> list[StoredObject]:
    """Return the stored inventory of a tile.

    Raises:
        InventoryMissing: If there is none, or it is damaged, of another version or of another tile.
        StorageError: If it cannot be fetched.
    """
    where = store.url(inventory_key(tile))
    try:
        table = pq.read_table(io.BytesIO(store.read(inventory_key(tile))))
        table.validate(full=True)  # also checks that text is UTF-8
    except ObjectMissing:
        raise InventoryMissing(
            f"tile {tile} has no inventory at {where}: materialize chip_inventory first"
        ) from None
    except DAMAGE as error:
        raise InventoryMissing(
            f"the inventory of tile {tile} at {where} is damaged ({damaged(error)}):"
            " materialize chip_inventory again"
        ) from error
    if table.schema != INVENTORY:
        raise InventoryMissing(
            f"the inventory of tile {tile} at {where} is of another version (columns"
            f" {', '.join(table.schema.names)}): materialize chip_inventory again"
        )
    stored_tile = (table.schema.metadata or {}).get(TILE.encode(), b"no tile").decode()
    if stored_tile != tile:
        raise InventoryMissing(
            f"the inventory at {where} is of {stored_tile}, expected {tile}: materialize chip_inventory again"
        )
    return list(map(StoredObject, *(column.to_pylist() for column in table.columns)))
