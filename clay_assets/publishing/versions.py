"""A published version holds vectors of one checkpoint at one level: this is where that is held.

The file names carry the version alone, and readers of a folder take all of it: vectors of two models in it
would be compared with one another.
"""

from collections.abc import Collection
from contextlib import closing
from pathlib import PurePosixPath

from clay_assets.parquet import DamagedFileError
from clay_assets.publishing.footer import read_provenance
from clay_assets.publishing.publish import published_files
from clay_assets.results.fingerprint import Fingerprint
from clay_assets.storage import Store

SAME = ("model", "checkpoint_sha256", "level")
"""What the files of a version have in common."""


class VersionMixed(ValueError):
    """Files of this version hold vectors of another checkpoint or level."""

    systemic = True


def require_one_model(output: Store, version: int, made: Fingerprint, replaced: Collection[str]) -> None:
    """Refuse to publish beside files of another checkpoint or level.

    Reads the footer of one file, of a tile that the run does not replace.

    Args:
        output: Store of published files.
        version: Of the published data.
        made: Of the vectors to publish.
        replaced: Tiles that the run publishes.

    Raises:
        VersionMixed: If another tile's file was made otherwise.
        StorageError: If the store refuses.
    """
    others = (files[-1] for tile, files in published_files(output, version).items() if tile not in replaced)
    for file in others:
        try:
            with closing(output.open(file)) as source:
                found = read_provenance(source)
        except DamagedFileError:  # the check of its own tile names it
            continue
        wanted = {name: str(getattr(made, name)) for name in SAME}
        got = {name: found.get(name, "") for name in SAME}
        if got != wanted:
            raise VersionMixed(
                f"version {version} in {output.uri} holds {_named(got)} ({PurePosixPath(file.url).name}),"
                f" this run"
                f" makes {_named(wanted)}: publish under another CLAY_VERSION, or remove the old files"
            )
        return


def _named(facts: dict[str, str]) -> str:
    return f"{facts['model']} {facts['level']} of checkpoint {facts['checkpoint_sha256'][:12]}"
