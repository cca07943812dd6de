"""Writes the tiles of a store as a manifest, for `clay tiles`. Reading one: `manifest`."""

import shutil
import sys
from pathlib import Path

from clay_assets.storage import StorageError, Store, replacing
from clay_assets.tiles.code import TILE_CODE

FOLDERS_NAMED = 10
"""Maximum number of folders other than tiles in a message."""


class OutputError(OSError):
    """A file cannot be written."""


def print_tiles(chips: Store, output: Path | None = None) -> None:
    """Print or write the tiles that have a folder, sorted, one code per line.

    Args:
        chips: Holds one folder per tile.
        output: File to replace; None: stdout.

    Raises:
        OutputError: If the file cannot be written.
        StorageError: If the store cannot be listed, or has no tiles.
    """
    folders = chips.folders()
    others = [name for name in folders if not TILE_CODE.fullmatch(name)]
    named = ", ".join(others[:FOLDERS_NAMED]) + (" …" if len(others) > FOLDERS_NAMED else "")
    if len(others) == len(folders):
        raise StorageError(
            f"no tiles under {chips.uri}: expected folders named by MGRS codes such as 27WXN, got"
            f" {named or 'none'}. Use an address that holds one folder per tile."
        )
    manifest = "".join(f"{name}\n" for name in folders if name not in others)
    if output is None:
        print(manifest, end="")
    else:
        _replace(output, manifest)
        print(
            f"clay: {len(folders) - len(others)} tiles are in {output}; reload the code location if one is"
            " running",
            file=sys.stderr,
        )
    if others:
        print(f"clay: ignored, because they are not MGRS codes: {named}", file=sys.stderr)


def _replace(path: Path, text: str) -> None:
    """Replace a file as a whole and keep its mode."""
    target = path.resolve()
    try:
        target.parent.stat()  # `replacing` would create the folder
        with replacing(target) as file:
            if target.exists():
                shutil.copymode(target, file.name)
            file.write(text.encode())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
