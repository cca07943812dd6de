"""Options that several commands of `clay` share."""

import argparse
from pathlib import Path
from typing import Any

Subparsers = Any  # argparse's own name of the type begins with an underscore


def add_where(parser: argparse.ArgumentParser) -> None:
    """Add `--where`, the address of the embeddings."""
    parser.add_argument("--where", metavar="ADDRESS", help="the embeddings (default: CLAY_OUTPUT_URI)")


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add `--version`, which chooses among several versions of the files."""
    parser.add_argument("--version", type=int, metavar="N", help="version of the files, if there are several")


def add_tiles(parser: argparse.ArgumentParser) -> None:
    """Add `--tiles`, a manifest."""
    parser.add_argument("--tiles", type=Path, metavar="FILE", help="manifest (default: CLAY_TILES)")
