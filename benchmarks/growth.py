"""Cost by amount of work: time per chip and peak memory must stay flat. Prints the overhead per tile.

Runs `dagster asset materialize` over tiles of many chips and over many tiles of one chip, with the `tiny`
network, so that everything but the encoder shows. A second run over the same tiles finds them current. The
whole range takes a quarter of an hour: `--chips 50 500 5000 --tiles 1 50 500`.
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.measure import Measured, materialize, write_tile
from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets_tests.geotiffs import chip_bytes, chip_pixels

DATE = "2020-06-15"
LETTERS = "ABCDEFGHJKLMNPQRSTUV"
TILES = [f"{zone}U{column}{row}" for zone in (31, 32) for column in LETTERS for row in LETTERS]
"""Adjacent MGRS codes, sorted."""

Row = dict[str, float | str]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chips", type=int, nargs="+", default=[50, 500])
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 50])
    arguments = parser.parse_args()
    if max(arguments.tiles) > len(TILES):
        parser.error(f"at most {len(TILES)} tiles")
    with tempfile.TemporaryDirectory(prefix="clay-growth-") as folder:
        root = Path(folder)
        write_untrained_checkpoint(root / "tiny.ckpt", model_size="tiny")
        rows = [row for chips in arguments.chips for row in _runs(root, 1, chips)]
        rows += [row for tiles in arguments.tiles for row in _runs(root, tiles, 1)]
    print(f"{'':34}{'wall':>9}{'each':>10}{'peak':>9}")
    for row in rows:
        print(f"{row['what']:34}{row['wall_s']:7.1f} s{row['each_ms']:7.1f} ms{row['peak_mb']:6.0f} MB")
    print(json.dumps({"benchmark": "growth", "rows": rows}))


def _runs(root: Path, tiles: int, chips: int) -> list[Row]:
    """Run over `tiles` tiles of `chips` chips; with one chip per tile, run again."""
    home = root / f"{tiles}-{chips}"
    chip = chip_bytes(chip_pixels())
    for tile in TILES[:tiles]:
        write_tile(home / "data" / "chips", tile, DATE, chip, chips)
    variables = {
        "CLAY_CHECKPOINT": str(root / "tiny.ckpt"),
        "DAGSTER_HOME": str(home / "dagster"),
        "XDG_CACHE_HOME": str(root / "cache"),
    }
    whats = [f"{tiles} tiles, {chips} chips each"] + ([f"{tiles} tiles, current"] if chips == 1 else [])
    return [_row(what, materialize(home, TILES[:tiles], variables), tiles * chips) for what in whats]


def _row(what: str, measured: Measured, count: int) -> Row:
    return {
        "what": what,
        "wall_s": round(measured.wall, 2),
        "each_ms": round(1000 * measured.wall / count, 2),
        "peak_mb": round(measured.peak_mb),
    }


if __name__ == "__main__":
    main()
