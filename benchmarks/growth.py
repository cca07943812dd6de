"""Cost against work: time per chip and peak memory must stay flat, overhead per tile is stated.

Runs `dagster asset materialize` over tiles of many chips and over many tiles of one chip, with the `tiny`
network, so that everything but the encoder shows. A second run over the same tiles finds them current. The
whole range takes a quarter of an hour: `--chips 50 500 5000 --tiles 1 50 500`.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Measured, measure
from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels

DATE = "2020-06-15"
TILE = "27WXN"
LETTERS = "ABCDEFGHJKLMNPQRSTUV"
TILES = [f"{zone}U{column}{row}" for zone in (31, 32) for column in LETTERS for row in LETTERS]
"""Neighbouring MGRS codes, sorted."""


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
        chip = chip_bytes(chip_pixels())
        by_chips = [_tile_of(root, chip, count) for count in arguments.chips]
        by_tiles = [row for count in arguments.tiles for row in _run_of(root, chip, count)]
    print(f"{'':34}{'wall':>9}{'each':>10}{'peak':>9}")
    for row in (*by_chips, *by_tiles):
        print(f"{row['what']:34}{row['wall_s']:7.1f} s{row['each_ms']:7.1f} ms{row['peak_mb']:6.0f} MB")
    print(json.dumps({"benchmark": "growth", "rows": [*by_chips, *by_tiles]}))


def _tile_of(root: Path, chip: bytes, count: int) -> dict[str, float | str]:
    """One tile of many chips."""
    home = root / f"chips-{count}"
    _write_tile(home, TILE, chip, count)
    measured = _materialize(home, root, [TILE], "--partition", TILE)
    return _row(f"1 tile, {count} chips", measured, count)


def _run_of(root: Path, chip: bytes, count: int) -> list[dict[str, float | str]]:
    """Many tiles of one chip each in one run, and the same again."""
    home = root / f"tiles-{count}"
    tiles = TILES[:count]
    for tile in tiles:
        _write_tile(home, tile, chip, 1)
    selection = ("--partition-range", f"{tiles[0]}...{tiles[-1]}")
    rows = []
    for what in ("1 chip each", "current"):
        measured = _materialize(home, root, tiles, *selection)
        rows.append(_row(f"{count} tiles, {what}", measured, count))
    return rows


def _write_tile(home: Path, tile: str, chip: bytes, count: int) -> None:
    folder = home / "data" / "chips" / tile / DATE
    folder.mkdir(parents=True)
    first = folder / chip_name(1, tile=tile, date=DATE)
    first.write_bytes(chip)
    for number in range(2, count + 1):
        (folder / chip_name(number, tile=tile, date=DATE)).hardlink_to(first)


def _materialize(home: Path, root: Path, tiles: Sequence[str], *selection: str) -> Measured:
    (home / "tiles.txt").write_text("\n".join(tiles) + "\n")
    dagster_home = home / "dagster"
    dagster_home.mkdir(exist_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("CLAY_", "AWS_"))},
        "CLAY_CHECKPOINT": str(root / "tiny.ckpt"),
        "CLAY_TILES_PER_RUN": "0",
        "DAGSTER_HOME": str(dagster_home),
        "XDG_CACHE_HOME": str(root / "cache"),
    }
    command = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize"]
    command += ["-m", "clay_assets.definitions", "--select", "*"]
    return measure([*command, *selection], cwd=home, environment=environment)


def _row(what: str, measured: Measured, count: int) -> dict[str, float | str]:
    return {
        "what": what,
        "wall_s": round(measured.wall, 2),
        "each_ms": round(1000 * measured.wall / count, 2),
        "peak_mb": round(measured.peak_mb),
    }


if __name__ == "__main__":
    main()
