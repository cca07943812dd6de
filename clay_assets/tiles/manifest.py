"""Reads the manifest: a text file of the MGRS codes that become the partitions of every asset.

Partitions are static, because a static key can be materialized from the command line on a fresh machine;
they are sorted, so that a range of partitions means neighbouring tiles.
https://docs.dagster.io/guides/build/partitions-and-backfills/partitioning-assets
"""

from pathlib import Path

from clay_assets.tiles.code import TILE_CODE


class ManifestError(ValueError):
    """The manifest cannot be read; the message names each bad line."""


def read_tiles(path: Path) -> list[str]:
    """Return the tiles of a manifest, sorted and without duplicates.

    Args:
        path: Text file, one MGRS code per line; `#` begins a comment, blank lines are skipped.

    Raises:
        ManifestError: If the file is missing, is not text, has no tiles, or has lines that are not MGRS
            codes.
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
    codes = [(number, line.partition("#")[0].strip()) for number, line in enumerate(lines, start=1)]
    codes = [(number, code) for number, code in codes if code]
    bad = [f"line {number}: {code[:40]!r}" for number, code in codes if not TILE_CODE.fullmatch(code)]
    if bad:
        shown = "\n  ".join(bad[:10])
        more = f"\n  and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise ManifestError(
            f"{path.absolute()} has {len(bad)} lines that are not tiles such as 27WXN:\n  {shown}{more}"
        )
    if not codes:
        raise ManifestError(f"{path.absolute()} names no tile: write one MGRS code per line, such as 27WXN")
    return sorted({code for _, code in codes})
