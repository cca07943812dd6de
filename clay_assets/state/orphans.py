"""Published files that no tile stands for any more: of tiles without chips, or outside of the manifest.

They are found and named; only a person removes them (`clay prune`).
"""

from collections.abc import Collection

from clay_assets.publishing.names import parse_published_name
from clay_assets.storage import FolderMissing, Store, StoredObject


def orphaned_files(
    output: Store, manifest: Collection[str], empty: Collection[str]
) -> dict[str, list[StoredObject]]:
    """Published files of any version that have become orphans, by tile; from one listing.

    Args:
        output: Store of published files.
        manifest: The tiles of interest.
        empty: Those that have no chips.

    Raises:
        StorageError: If the store cannot be listed.
    """
    try:
        found = output.list()
    except FolderMissing:  # nothing was published yet
        return {}
    orphans: dict[str, list[StoredObject]] = {}
    for file in found:
        base = file.url.rpartition("/")[2]
        name = parse_published_name(base)
        if name is None or output.url(base) != file.url:  # not ours, or in a folder below
            continue
        if name.tile not in manifest or name.tile in empty:
            orphans.setdefault(name.tile, []).append(file)
    return orphans
