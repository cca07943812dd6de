"""The files of a published version: finds them, reads their inputs, and keeps them to one model.

A file's name has only the version, and readers of a folder read all files: a version of mixed models would
compare vectors of different networks.
"""

import hashlib
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import PurePosixPath

from clay_assets.parquet import DamagedFileError
from clay_assets.publishing.footer import read_provenance
from clay_assets.publishing.names import parse_published_name
from clay_assets.results.fingerprint import Fingerprint
from clay_assets.storage import FolderMissing, Store, StoredObject

FORMAT_VERSION = 2
"""Increased when the writer is corrected: files of an earlier format are then rewritten."""


class VersionMixed(ValueError):
    """Files of this version hold vectors of another checkpoint or level."""

    systemic = True


def published_files(output: Store, version: int, tile: str = "") -> dict[str, list[StoredObject]]:
    """List the published files of a version, whatever their dates, by tile; only of `tile` if it is given.

    Raises:
        StorageError: If the store cannot be listed.
    """
    try:
        found = output.list(f"{tile}_" if tile else "")
    except FolderMissing:  # nothing has been published yet
        return {}
    files: dict[str, list[StoredObject]] = {}
    for file in found:
        base = PurePosixPath(file.url).name
        name = parse_published_name(base)
        if (
            name is not None
            and output.url(base) == file.url  # not in a folder below
            and name.version == version
            and tile in ("", name.tile)
        ):
            files.setdefault(name.tile, []).append(file)
    return files


def inputs_of(fingerprint: Fingerprint, digest: str, inventory: Sequence[StoredObject]) -> str:
    """Hash everything that a published file's content depends on; the file stores it as `inputs`.

    Args:
        fingerprint: Fingerprint of the tile's results.
        digest: `chips_digest` of the chips that they account for.
        inventory: The tile's inventory: the file has the present URLs of its chips.
    """
    folder = inventory[0].url.rpartition("/")[0] if inventory else ""
    facts = (fingerprint.folder, digest, folder, str(FORMAT_VERSION))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def made_from(output: Store, file: StoredObject) -> str | None:
    """Read the `inputs` of a published file; return None if this package did not write the file.

    Raises:
        StorageError: If the file cannot be read, or was replaced since it was listed.
    """
    with closing(output.open(file)) as source:
        try:
            return read_provenance(source).get("inputs")
        except DamagedFileError:
            return None


def require_one_model(output: Store, version: int, made: Fingerprint, replaced: Collection[str]) -> None:
    """Refuse to publish into a version with files of another checkpoint or level.

    Reads the footer of one file, of a tile that the run does not replace.

    Args:
        output: Store of published files.
        version: Version of the published data.
        made: Fingerprint of the vectors to publish.
        replaced: Tiles that the run publishes.

    Raises:
        VersionMixed: If another tile's file has another model, checkpoint or level.
        StorageError: If the store refuses.
    """
    others = (files[-1] for tile, files in published_files(output, version).items() if tile not in replaced)
    for file in others:
        try:
            with closing(output.open(file)) as source:
                provenance = read_provenance(source)
        except DamagedFileError:  # reported by the check of its own tile
            continue
        names = ("model", "level", "checkpoint_sha256")
        expected, got = [getattr(made, name) for name in names], [provenance.get(name, "") for name in names]
        if got != expected:
            words = "{} {} of checkpoint {:.12}".format
            raise VersionMixed(
                f"version {version} in {output.uri} holds {words(*got)} ({PurePosixPath(file.url).name}),"
                f" this run produces {words(*expected)}: publish under another CLAY_VERSION, or remove the"
                " old files"
            )
        return
