"""Finds orphans: published files of tiles without chips, or of tiles that are not in the manifest.

Only `clay prune --yes` removes them.
"""

from collections.abc import Collection

from clay_assets.publishing.versions import published_files
from clay_assets.storage import Store, StoredObject


def orphaned_files(
    output: Store, manifest: Collection[str], empty: Collection[str]
) -> dict[str, list[StoredObject]]:
    """Find the published files of any version that are orphans, by tile; one listing.

    Args:
        output: Store of published files.
        manifest: Tiles of the manifest.
        empty: Tiles of the manifest without chips.

    Raises:
        StorageError: If the store cannot be listed.
    """
    files = published_files(output, version=None)
    return {tile: found for tile, found in files.items() if tile not in manifest or tile in empty}
