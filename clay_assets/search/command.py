"""The command `clay similar`: a table of the nearest chips, and their picture.

Only arguments and printing; the search is `similar.py`'s. The parser is made without importing it, so that
`clay --help` does not wait for geopandas.
"""

import argparse
import re
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import geopandas

    from clay_assets.search.similar import Found

Subparsers = Any  # argparse names its type with a leading underscore


def add_parser(commands: Subparsers) -> None:
    """Add `similar` to the commands of `clay`."""
    parser = commands.add_parser(
        "similar",
        help="find the chips most like some examples",
        description="Print the chips whose embeddings are nearest to those of the examples, by cosine of"
        " centred vectors. --to, --at and --not may be given several times.",
    )
    # A place west of Greenwich begins with a minus; argparse takes for an option what is not just a number.
    parser._negative_number_matcher = re.compile(r"-\d")
    parser.add_argument("--to", action="append", default=[], metavar="CHIP", help="URL or name of an example")
    parser.add_argument("--at", action="append", default=[], type=_place, metavar="LON,LAT", help="a place")
    parser.add_argument("--not", action="append", default=[], dest="unlike", metavar="CHIP", help="to avoid")
    parser.add_argument("--date", type=date.fromisoformat, metavar="YYYY-MM-DD", help="of the examples")
    parser.add_argument("-k", type=int, default=10, help="how many to find (default 10)")
    parser.add_argument("--where", metavar="ADDRESS", help="the embeddings; CLAY_OUTPUT_URI if left out")
    parser.add_argument("--version", type=int, metavar="N", help="of the files, if there are several")
    parser.add_argument("--raw", action="store_true", help="compare vectors without subtracting their mean")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the chips found")
    parser.add_argument("--output", type=Path, metavar="FILE.parquet", help="write them as GeoParquet")


def run(args: argparse.Namespace, where: str) -> int:
    """Search and print.

    Args:
        args: As `add_parser`'s parser gives them.
        where: The embeddings, unless `--where` names others.

    Returns:
        The exit status: 0, or 2 where there is no answer and stderr says why.
    """
    from clay_assets.reading import NothingToRead
    from clay_assets.search.examples import ExampleMissing
    from clay_assets.search.similar import Query, search
    from clay_assets.storage import StorageError

    try:
        query = Query(
            tuple(args.to), tuple(args.at), args.date, tuple(args.unlike), args.k, args.raw, args.version
        )
        result = search(args.where or where, query)
        print(as_table(result.found))
        if args.output:
            _write(args.output, result.found)
        if args.picture:
            _draw(args.picture, result)
    except (StorageError, NothingToRead, ExampleMissing, ValueError, OSError) as error:
        print(f"clay: {error}", file=sys.stderr)
        return 2
    return 0


def as_table(found: "geopandas.GeoDataFrame") -> str:
    """One line a chip: similarity, date, longitude and latitude of its middle, URL."""
    from clay_assets.search.examples import middle_of

    lines = [f"{'similarity':>10}  {'date':10}  {'lon':>9}  {'lat':>8}  source_url"]
    for row in found.itertuples():
        middle = middle_of(row.geometry)
        lines.append(
            f"{row.similarity:10.4f}  {row.date}  {middle.x:9.4f}  {middle.y:8.4f}  {row.source_url}"
        )
    return "\n".join(lines)


def _write(path: Path, found: "geopandas.GeoDataFrame") -> None:
    # attrs would go into pandas' own metadata.
    plain = found.copy()
    plain.attrs = {}
    plain.to_parquet(path, index=False, compression="zstd", schema_version="1.1.0", write_covering_bbox=True)
    print(f"clay: {len(found)} chips are in {path}", file=sys.stderr)


def _draw(path: Path, result: "Found") -> None:
    from clay_assets.search.picture import picture_of

    picture, missing = picture_of(result.found, result.examples)
    path.write_bytes(picture)
    for reason in missing:
        print(f"clay: not in the picture: {reason}", file=sys.stderr)
    print(f"clay: the picture is {path}", file=sys.stderr)


def _place(text: str) -> tuple[float, float]:
    try:
        lon, lat = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected LON,LAT such as -21.9,64.1") from None
    return lon, lat
