"""The command `clay verify`: options, the answer as text and as JSON, exit status."""

import json
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import clay_model
from clay_assets.cli_options import Subparsers, add_tiles, add_where

if TYPE_CHECKING:
    from clay_assets.embedding.encoders import EncoderSettings
    from clay_assets.state.states import TileStores
    from clay_assets.verify.check import CheckedTile

FAULTS_SHOWN = 20  # of each kind, in the text; JSON has all


def add_parser(commands: Subparsers) -> None:
    """Add `verify` to the commands of `clay`."""
    parser = commands.add_parser(
        "verify",
        help="compare the published files with the bucket and the settings",
        description="Compare the published files with the chips of the bucket and the settings: missing tiles"
        " and chips, stale, orphaned and damaged files, mixed models. Reads listings and footers, unless"
        " --deep or --recompute is given. Exit status: 0 without faults, 1 with faults, 2 after an error.",
    )
    add_where(parser)
    add_tiles(parser)
    parser.add_argument("--deep", action="store_true", help="read every row of every file, too")
    parser.add_argument(
        "--recompute", type=_count, default=0, metavar="N", help="embed N chips again and compare the vectors"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample of chips (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON, with every fault")


def run(
    args: Namespace, stores: "TileStores", tiles: Sequence[str], encoder: "EncoderSettings", version: int
) -> int:
    """Verify the published files of a version of some tiles and print the result.

    Returns the exit status: 0 without faults, 1 with faults, 2 after an error, which is on stderr.
    """
    from clay_assets.verify.check import check

    print(f"clay: checking {len(tiles)} tiles under {stores.output.uri}", file=sys.stderr)
    try:
        target = encoder.known_target(stores.work) or encoder.described_target()
        checked, faults = check(stores, tiles, target, version, deep=args.deep)
        recomputed = None
        if args.recompute:
            from clay_assets.verify.recompute import recompute  # imports PyTorch

            good = [tile for tile in checked if not tile.faults]
            others, chips, largest = recompute(stores, good, target, encoder, args.recompute, args.seed)
            faults += others
            recomputed = {"chips": chips, "largest": largest}
    except ValueError as error:
        if not isinstance(error, clay_model.CheckpointError):  # imports PyTorch
            raise
        print(f"clay: {error}", file=sys.stderr)
        return 2
    preferred = target.preferred
    answer = {
        "where": stores.output.uri,
        "model": f"{preferred.model} {preferred.level} {preferred.checkpoint_sha256[:12]}",
        "ok": not faults,
        "deep": args.deep,
        "counts": _counts(checked),
        "faults": [fault._asdict() for fault in faults],
        "recomputed": recomputed,
    }
    print(json.dumps(answer, indent=2) if args.json else as_text(answer))
    return 1 if faults else 0


def as_text(answer: dict[str, Any]) -> str:
    """Return what `--json` prints as text: counts, a table of the faults' kinds, each kind's first faults."""
    from clay_assets.state.states import human_size
    from clay_assets.verify.check import KINDS

    read = "every row" if answer["deep"] else "listings and footers"
    size = human_size(answer["counts"]["bytes"])
    counts = {name: f"{count:,}" for name, count in answer["counts"].items()}
    lines = [
        f"{answer['where']}, for {answer['model']}: read {read}",
        f"{counts['tiles']} tiles ({counts['empty']} without chips, {counts['unusable']} without a usable"
        f" one), {counts['chips']} chips",
        f"{counts['files']} files, {counts['rows']} rows, {counts['skipped']} chips skipped, {size}",
    ]
    if recomputed := answer["recomputed"]:
        from clay_assets.verify.recompute import TOLERANCE  # imports PyTorch

        limits = ", ".join(f"{limit:g} {name}" for name, limit in TOLERANCE.items())
        lines.append(
            f"{recomputed['chips']:,} chips embedded again: relative distance at most"
            f" {recomputed['largest']:.2g} (tolerance {limits})"
        )
    if answer["ok"]:
        return "\n".join([*lines, "", "No faults: the output matches the bucket and the settings."])
    by_kind = {kind: [fault for fault in answer["faults"] if fault["kind"] == kind] for kind in KINDS}
    lines += ["", f"{'fault':<14} {'count':>7}"]
    lines += [f"{kind:<14} {len(found):>7,}  {KINDS[kind]}" for kind, found in by_kind.items() if found]
    for kind, found in by_kind.items():
        for fault in found[:FAULTS_SHOWN]:
            name = fault["url"].rpartition("/")[2] or fault["tile"]
            lines.append(f"  {kind}: {name + ': ' if name else ''}{fault['what']}")
        if len(found) > FAULTS_SHOWN:
            lines.append(f"  {kind}: {len(found) - FAULTS_SHOWN:,} more; --json lists all")
    return "\n".join([*lines, "", f"{len(answer['faults']):,} faults"])


def _counts(tiles: Sequence["CheckedTile"]) -> dict[str, int]:
    files = [file for tile in tiles for file in tile.files]
    return {
        "tiles": len(tiles),
        "empty": sum(not tile.chips for tile in tiles),
        "unusable": sum(tile.unusable for tile in tiles),
        "chips": sum(len(tile.chips) for tile in tiles),
        "files": len(files),
        "rows": sum(file.rows for file in files),
        "skipped": sum(file.number("skipped") for file in files),
        "bytes": sum(file.object.size for file in files),
    }


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"got {text!r}; expected a whole number from 0")
    return int(text)
