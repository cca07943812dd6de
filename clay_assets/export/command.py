"""The command `clay export`."""

import argparse
import sys

from clay_assets.cli_options import Subparsers, add_version, add_where


def add_parser(commands: Subparsers) -> None:
    """Add `export` to the commands of `clay`."""
    parser = commands.add_parser(
        "export",
        help="write one dataset of all tiles, for sharing",
        description="Write the embeddings of all tiles as one GeoParquet 1.1 dataset: partitioned by grid"
        " zone and year, along a Hilbert curve, with a bbox column.",
    )
    parser.add_argument("target", help="folder or s3://bucket/prefix that holds the dataset alone")
    add_where(parser)
    parser.add_argument("--dtype", choices=("float32", "uint8"), default="float32", help="of the vectors")
    add_version(parser)


def run(args: argparse.Namespace, where: str) -> int:
    """Export the embeddings at `--where`, else at `where`; return 0, or 2 after an error."""
    from clay_assets.export.dataset import export
    from clay_assets.reading import NothingToRead
    from clay_assets.storage import StorageError, Store

    try:
        done = export(args.where or where, Store(args.target), dtype=args.dtype, version=args.version)
    except (StorageError, NothingToRead, ValueError, OSError) as error:
        print(f"clay: {error}", file=sys.stderr)
        return 2
    print(f"{done.rows:,} rows in {done.files:,} files, {done.bytes / 1e6:,.1f} MB, at {done.url}")
    if recall := done.recall:
        print(
            f"recall@{recall.neighbours} against float32: {recall.raw:.3f} raw, {recall.centred:.3f} centred"
            f" ({recall.queries:,} queries among {recall.among:,} rows)"
        )
    return 0
