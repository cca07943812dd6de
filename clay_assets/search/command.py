"""The command `clay similar`. The parser needs no geopandas, so that `clay --help` is quick."""

import argparse
import re
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from clay_assets.cli_options import Subparsers, add_version, add_where

if TYPE_CHECKING:
    from clay_assets.storage import S3Options


def add_parser(commands: Subparsers) -> None:
    """Add `similar` to the commands of `clay`."""
    parser = commands.add_parser(
        "similar",
        help="find the chips most similar to examples",
        description="Print the chips whose embeddings are nearest to those of the examples, by cosine of"
        " centred vectors. --to, --at and --not may be given several times.",
    )
    # Longitudes west of Greenwich begin with a minus: argparse takes "-21.9,64.1" for an option otherwise.
    parser._negative_number_matcher = re.compile(r"-\d")
    parser.add_argument("--to", action="append", default=[], metavar="CHIP", help="URL or name of an example")
    parser.add_argument("--at", action="append", default=[], type=_place, metavar="LON,LAT", help="a place")
    parser.add_argument("--not", action="append", default=[], dest="unlike", metavar="CHIP", help="to avoid")
    parser.add_argument("--date", type=date.fromisoformat, metavar="YYYY-MM-DD", help="of the examples")
    parser.add_argument("-k", type=int, default=10, help="number of chips to find (default: 10)")
    add_where(parser)
    add_version(parser)
    parser.add_argument("--raw", action="store_true", help="compare vectors without subtracting their mean")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the chips found")
    parser.add_argument("--output", type=Path, metavar="FILE.parquet", help="write them as GeoParquet")


def run(args: argparse.Namespace, where: str, options: "S3Options") -> int:
    """Search the embeddings at `--where`, else at `where`; return 0, or 2 after an error.

    `options` says how to read the chips of the picture.
    """
    from clay_assets.reading import NothingToRead
    from clay_assets.search.examples import ExampleMissing, Query, middle_of
    from clay_assets.search.similar import search
    from clay_assets.storage import StorageError

    try:
        query = Query(version=args.version, to=args.to, at=args.at, day=args.date, unlike=args.unlike)
        found, examples = search(args.where or where, query, args.k, raw=args.raw)
        print(f"{'similarity':>10}  {'date':10}  {'lon':>9}  {'lat':>8}  source_url")
        for row in found.itertuples():
            middle = middle_of(row.geometry)
            place = f"{middle.x:9.4f}  {middle.y:8.4f}"
            print(f"{row.similarity:10.4f}  {row.date}  {place}  {row.source_url}")
        if args.output:
            plain = found.copy()
            plain.attrs = {}  # pandas would write them into its own metadata
            plain.to_parquet(
                args.output, index=False, compression="zstd", schema_version="1.1.0", write_covering_bbox=True
            )
            print(f"clay: wrote {len(found)} chips to {args.output}", file=sys.stderr)
        if args.picture:
            from clay_assets.search.picture import picture_of

            picture, missing = picture_of(found, examples, options)
            args.picture.write_bytes(picture)
            for reason in missing:
                print(f"clay: not in the picture: {reason}", file=sys.stderr)
            print(f"clay: wrote the picture to {args.picture}", file=sys.stderr)
    except (StorageError, NothingToRead, ExampleMissing, ValueError, OSError) as error:
        print(f"clay: {error}", file=sys.stderr)
        return 2
    return 0


def _place(text: str) -> tuple[float, float]:
    try:
        lon, lat = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected LON,LAT such as -21.9,64.1") from None
    return lon, lat
