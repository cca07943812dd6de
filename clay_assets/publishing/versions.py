"""The files of a published version: finds them, reads their inputs, and keeps them to one model.

A file's name has only the version, and readers of a folder read all files: a version of mixed models would
compare vectors of different networks. Every function that takes a store raises `StorageError` if it refuses.
"""

import hashlib
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import PurePosixPath

from clay_assets.parquet import DamagedFileError
from clay_assets.publishing.schema import parse_published_name, read_provenance
from clay_assets.results import Fingerprint
from clay_assets.storage import FolderMissing, Store, StoredObject

FORMAT_VERSION = 2
"""Increased when the writer is corrected: files of an earlier format are then rewritten."""


class VersionMixed(ValueError):
    """Files of this version hold vectors of another checkpoint or level."""

    systemic = True


def published_files(output: Store, version: int | None, tile: str = "") -> dict[str, list[StoredObject]]:
    """List the published files of a version by tile, whatever their dates.

    `version` None: of all versions; `tile`: only that tile's.
    """
    try:
        found = output.list(f"{tile}_" if tile else "")
    except FolderMissing:  # nothing has been published yet
        return {}
    files: dict[str, list[StoredObject]] = {}
    for file in found:
        base = PurePosixPath(file.url).name
        name = parse_published_name(base)
        if name is None or output.url(base) != file.url:  # another program's, or in a folder below
            continue
        if version in (None, name.version) and tile in ("", name.tile):
            files.setdefault(name.tile, []).append(file)
    return files


def inputs_of(fingerprint: Fingerprint, digest: str, inventory: Sequence[StoredObject]) -> str:
    """Hash everything that a published file's content depends on; the file stores it as `inputs`.

    `digest` is the `chips_digest` of the chips with results; the file has the present URLs of the inventory.
    """
    folder = inventory[0].url.rpartition("/")[0] if inventory else ""
    facts = (fingerprint.folder, digest, folder, str(FORMAT_VERSION))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def made_from(output: Store, file: StoredObject) -> str | None:
    """Read the `inputs` of a published file; return None if this package did not write the file."""
    return (_provenance(output, file) or {}).get("inputs")


def require_one_model(output: Store, version: int, made: Fingerprint, replaced: Collection[str]) -> None:
    """Refuse to publish vectors into a version with files of another checkpoint or level.

    Reads the footer of one file, of a tile that the run does not replace.

    Raises:
        VersionMixed: If another tile's file has another model, checkpoint or level.
    """
    for tile, files in published_files(output, version).items():
        provenance = None if tile in replaced else _provenance(output, files[-1])
        if provenance is None:  # a damaged file is reported by the check of its own tile
            continue
        names = ("model", "level", "checkpoint_sha256")
        expected, got = [getattr(made, name) for name in names], [provenance.get(name, "") for name in names]
        if got != expected:
            words, file = "{} {} of checkpoint {:.12}".format, PurePosixPath(files[-1].url).name
            raise VersionMixed(
                f"version {version} in {output.uri} holds {words(*got)} ({file}), this run produces"
                f" {words(*expected)}: publish under another CLAY_VERSION, or remove the old files"
            )
        return


def _provenance(output: Store, file: StoredObject) -> dict[str, str] | None:
    """Read the provenance of a published file; return None if it is damaged."""
    with closing(output.open(file)) as source:
        try:
            return read_provenance(source)
        except DamagedFileError:
            return None
