"""Finds orphans: published files of tiles without chips, or of tiles that are not in the manifest.

Only `clay prune --yes` removes them.
"""

from collections.abc import Collection

from clay_assets.publishing.names import parse_published_name
from clay_assets.storage import FolderMissing, Store, StoredObject


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
    try:
        found = output.list()
    except FolderMissing:  # nothing has been published
        return {}
    orphans: dict[str, list[StoredObject]] = {}
    for file in found:
        base = file.url.rpartition("/")[2]
        name = parse_published_name(base)
        if name is None or output.url(base) != file.url:  # another program's, or in a subfolder
            continue
        if name.tile not in manifest or name.tile in empty:
            orphans.setdefault(name.tile, []).append(file)
    return orphans
