"""The command `clay export`: published files into one dataset, and what its bytes cost.

Only arguments and printing; the work is `dataset.py`'s.
"""

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clay_assets.export.dataset import Exported

Subparsers = Any  # argparse names its type with a leading underscore


def add_parser(commands: Subparsers) -> None:
    """Add `export` to the commands of `clay`."""
    parser = commands.add_parser(
        "export",
        help="write one dataset of all tiles, for sharing",
        description="Write the embeddings of all tiles as one GeoParquet 1.1 dataset: partitioned by grid"
        " zone and year, along a Hilbert curve, with a bbox column.",
    )
    parser.add_argument("target", help="folder or s3://bucket/prefix of the dataset's own")
    parser.add_argument("--where", metavar="ADDRESS", help="the embeddings; CLAY_OUTPUT_URI if left out")
    parser.add_argument("--dtype", choices=("float32", "uint8"), default="float32", help="of the vectors")
    parser.add_argument("--version", type=int, metavar="N", help="of the files, if there are several")


def run(args: argparse.Namespace, where: str) -> int:
    """Export and print.

    Args:
        args: As `add_parser`'s parser gives them.
        where: The embeddings, unless `--where` names others.

    Returns:
        The exit status: 0, or 2 where nothing was written and stderr says why.
    """
    from clay_assets.export.dataset import export
    from clay_assets.reading import NothingToRead
    from clay_assets.storage import StorageError, Store

    try:
        done = export(args.where or where, Store(args.target), dtype=args.dtype, version=args.version)
    except (StorageError, NothingToRead, ValueError, OSError) as error:
        print(f"clay: {error}", file=sys.stderr)
        return 2
    print(as_text(done))
    return 0


def as_text(done: "Exported") -> str:
    """Rows, files and bytes; of bytes, what they cost."""
    lines = [f"{done.rows:,} rows in {done.files:,} files, {done.bytes / 1e6:,.1f} MB, at {done.url}"]
    if done.recall is not None:
        cost = done.recall
        lines.append(
            f"recall@{cost.neighbours} against float32: {cost.raw:.3f} raw, {cost.centred:.3f} centred"
            f" ({cost.queries:,} queries among {cost.among:,} rows)"
        )
    return "\n".join(lines)
