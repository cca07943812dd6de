"""The command `clay verify`: is the output what the bucket and the settings call for?

Only arguments, printing and the exit status; the work is the other modules'.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clay_assets.embedding.encoders import EncoderSettings
    from clay_assets.state.states import TileStores

Subparsers = Any  # argparse names its type with a leading underscore


def add_parser(commands: Subparsers) -> None:
    """Add `verify` to the commands of `clay`."""
    parser = commands.add_parser(
        "verify",
        help="say whether the published files are what the bucket and the settings call for",
        description="Compare the published files with the chips of the bucket and the settings: missing tiles"
        " and chips, stale, orphaned and damaged files, mixed models. Reads listings and footers, and more if"
        " asked. The exit status is 0 where nothing is wrong, 1 where something is, 2 where there is no"
        " answer.",
    )
    parser.add_argument("--where", metavar="ADDRESS", help="the embeddings; CLAY_OUTPUT_URI if left out")
    parser.add_argument("--tiles", type=Path, metavar="FILE", help="manifest; that of CLAY_TILES if left out")
    parser.add_argument("--deep", action="store_true", help="read every row of every file, too")
    parser.add_argument(
        "--recompute", type=_count, default=0, metavar="N", help="embed N chips again and compare the vectors"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample of chips (default 0)")
    parser.add_argument("--json", action="store_true", help="print JSON, with every fault")


def run(
    args: argparse.Namespace,
    stores: "TileStores",
    tiles: "Sequence[str]",
    encoder: "EncoderSettings",
    version: int,
) -> int:
    """Verify and print.

    Args:
        args: As `add_parser`'s parser gives them.
        stores: Chips, work and published files.
        tiles: MGRS codes.
        encoder: What the settings call for.
        version: Of the published files.

    Returns:
        The exit status: 0 where nothing is wrong, 1 where something is, 2 where it could not tell; stderr
        says why.

    Raises:
        StorageError, SettingsError: As for every command.
    """
    from clay_assets.verify.gather import gather
    from clay_assets.verify.judge import judge
    from clay_assets.verify.recompute import recompute
    from clay_assets.verify.report import Verified, as_json, as_text
    from clay_model import CheckpointError

    print(f"clay: looking at {len(tiles)} tiles under {stores.output.uri}", file=sys.stderr)
    try:
        target = encoder.known_target(stores.work) or encoder.described_target()
        seen = gather(stores, tiles, target, version, deep=args.deep)
        faults = judge(seen.tiles, seen.orphans, target)
        done = None
        if args.recompute:
            bad = {fault.tile for fault in faults}
            good = [facts for facts in seen.tiles if facts.tile not in bad]
            done = recompute(stores, good, target, encoder, count=args.recompute, seed=args.seed)
            faults += done.faults
    except CheckpointError as error:
        print(f"clay: {error}", file=sys.stderr)
        return 2
    made = target.preferred
    model = f"{made.model} {made.level} {made.checkpoint_sha256[:12]}"
    verified = Verified(stores.output.uri, model, seen.tiles, faults, args.deep, done)
    print(as_json(verified) if args.json else as_text(verified))
    return 1 if faults else 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number from 0")
    return int(text)
