"""The manifest: a text file of the MGRS codes that become the partitions of every asset.

Partitions are static, because a static key can be materialized from the command line on a fresh machine;
they are sorted, so that a range of partitions means neighbouring tiles.
https://docs.dagster.io/guides/build/partitions-and-backfills/partitioning-assets
"""

import shutil
import sys
from pathlib import Path

from clay_assets.storage import StorageError, Store, replacing
from clay_assets.tiles import TILE_CODE

FOLDERS_NAMED = 10
"""Maximum number of folders in a message."""


class ManifestError(ValueError):
    """The manifest cannot be read, has lines that are not tiles, or cannot be written."""


def read_tiles(path: Path) -> list[str]:
    """Return the tiles of a manifest, sorted and without duplicates.

    It has one MGRS code per line; `#` begins a comment, blank lines are skipped. Raises ManifestError if it
    is missing, is not text, has no tiles, or has lines that are not MGRS codes.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # some editors begin with a byte order mark
    except FileNotFoundError:
        raise ManifestError(
            f"no tile manifest at {path.absolute()}: write one MGRS code per line, for example with"
            " `clay tiles s3://bucket/prefix --output tiles.txt`, or set CLAY_TILES to another file"
        ) from None
    except (UnicodeDecodeError, OSError) as error:
        raise ManifestError(f"{path.absolute()} cannot be read as a text file of tiles: {error}") from error
    codes = {number: line.partition("#")[0].strip() for number, line in enumerate(lines, start=1)}
    codes = {number: code for number, code in codes.items() if code}
    bad = [f"line {number}: {code[:40]!r}" for number, code in codes.items() if not TILE_CODE.fullmatch(code)]
    if bad:
        shown = "\n  ".join(bad[:10])
        more = f"\n  and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise ManifestError(
            f"{path.absolute()} has {len(bad)} lines that are not tiles such as 27WXN:\n  {shown}{more}"
        )
    if not codes:
        raise ManifestError(f"{path.absolute()} names no tile: write one MGRS code per line, such as 27WXN")
    return sorted(set(codes.values()))


def print_tiles(chips: Store, output: Path | None = None) -> None:
    """Write the tiles that have a folder, sorted, one code per line, to stdout or in place of a file.

    Raises StorageError if the store cannot be listed or has no tiles, ManifestError if the file cannot be
    written.
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
        count = len(folders) - len(others)
        print(
            f"clay: {count} tiles are in {output}; reload the code location if one is running",
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
        raise ManifestError(f"cannot write {path}: {error.strerror}") from error
