"""Rows and bytes that Dagster stores per tile in PostgreSQL.

    python -m benchmarks.events

One run over a range of tiles, as a backfill launches it: PostgreSQL's tables and indexes before and after.
Most of a tile's bytes are its picture, which grows with its chips.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg2

from benchmarks.growth import DATE, TILES
from benchmarks.measure import materialize, write_tile
from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets_tests.geotiffs import chip_bytes, chip_pixels
from rehearsal.servers import postgres

SIZES = """SELECT relname, pg_total_relation_size(oid) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", type=int, default=64)
    parser.add_argument("--chips", type=int, nargs="+", default=[1, 50], help="of each tile")
    options = parser.parse_args()
    rows = [_row(options.tiles, chips) for chips in options.chips]
    for row in rows:
        print(
            f"{row['tiles']:.0f} tiles of {row['chips']:.0f} chips: {row['rows_per_tile']:.1f} rows and"
            f" {row['bytes_per_tile'] / 1000:.1f} kB a tile; by table {row['tables']}"
        )
    print(json.dumps({"benchmark": "events", "rows": rows}))


def _row(tiles: int, chips: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="clay-events-", dir="/tmp") as folder:
        root = Path(folder)
        write_untrained_checkpoint(root / "tiny.ckpt", model_size="tiny")
        (root / "dagster").mkdir()
        (root / "dagster" / "dagster.yaml").write_text(
            "telemetry: {enabled: false}\nstorage: {postgres: {postgres_url: {env: DAGSTER_POSTGRES_URL}}}\n"
        )
        with postgres(root) as port:
            # One tile first: it creates the tables, their first pages and the run's own rows.
            _materialize(root, port, TILES[:1], chips)
            before = _tables(port)
            _materialize(root, port, TILES[1 : tiles + 1], chips)
            after = _tables(port)
    added = {name: (after[name][0] - before[name][0], after[name][1] - before[name][1]) for name in after}
    return {
        "tiles": tiles,
        "chips": chips,
        "rows_per_tile": sum(rows for rows, _ in added.values()) / tiles,
        "bytes_per_tile": sum(size for _, size in added.values()) / tiles,
        "tables": {
            name: f"{rows / tiles:.2f} rows, {size / tiles / 1000:.1f} kB"
            for name, (rows, size) in sorted(added.items())
            if rows
        },
    }


def _materialize(root: Path, port: int, tiles: Sequence[str], chips: int) -> None:
    chip = chip_bytes(chip_pixels())
    for tile in tiles:
        write_tile(root / "data" / "chips", tile, DATE, chip, chips)
    url = f"postgresql+psycopg2://dagster@127.0.0.1:{port}/dagster"
    variables = {"CLAY_CHECKPOINT": str(root / "tiny.ckpt"), "DAGSTER_HOME": str(root / "dagster")}
    materialize(root, tiles, variables | {"DAGSTER_POSTGRES_URL": url})


def _tables(port: int) -> dict[str, tuple[int, int]]:
    """Return rows and bytes of each table."""
    connection = psycopg2.connect(host="127.0.0.1", port=port, user="dagster", dbname="dagster")
    with connection, connection.cursor() as cursor:
        cursor.execute(SIZES)
        sizes = dict(cursor.fetchall())
        counted = {}
        for name, size in sizes.items():
            cursor.execute(f'SELECT count(*) FROM "{name}"')  # noqa: S608 - a table's name, from the catalogue
            counted[name] = (cursor.fetchone()[0], size)
    connection.close()
    return counted


if __name__ == "__main__":
    main()
