"""The command `clay verify`: options, the answer as text and as JSON, exit status."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from clay_assets.cli_options import Subparsers, add_tiles, add_where

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clay_assets.embedding.encoders import EncoderSettings
    from clay_assets.state.states import TileStores
    from clay_assets.verify.faults import TileFacts

FAULTS_SHOWN = 20
"""Faults of each kind that the text lists; JSON has all."""


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
    args: argparse.Namespace,
    stores: "TileStores",
    tiles: "Sequence[str]",
    encoder: "EncoderSettings",
    version: int,
) -> int:
    """Verify the published files and print the result.

    Args:
        args: Options of `add_parser`.
        stores: Chips, work and published files.
        tiles: MGRS codes.
        encoder: Settings of the network.
        version: Version of the published files.

    Returns:
        The exit status: 0 without faults, 1 with faults, 2 after an error, which is on stderr.

    Raises:
        StorageError, SettingsError: As for every command.
    """
    from clay_assets.verify.faults import find_faults
    from clay_assets.verify.gather import gather
    from clay_assets.verify.recompute import recompute
    from clay_model import CheckpointError

    print(f"clay: checking {len(tiles)} tiles under {stores.output.uri}", file=sys.stderr)
    try:
        target = encoder.known_target(stores.work) or encoder.described_target()
        facts, orphans = gather(stores, tiles, target, version, deep=args.deep)
        faults = find_faults(facts, orphans, target)
        recomputed = None
        if args.recompute:
            bad = {fault.tile for fault in faults}
            good = [tile for tile in facts if tile.tile not in bad]
            recomputed = recompute(stores, good, target, encoder, count=args.recompute, seed=args.seed)
            faults += recomputed.faults
    except CheckpointError as error:
        print(f"clay: {error}", file=sys.stderr)
        return 2
    preferred = target.preferred
    answer = {
        "where": stores.output.uri,
        "model": f"{preferred.model} {preferred.level} {preferred.checkpoint_sha256[:12]}",
        "ok": not faults,
        "deep": args.deep,
        "counts": _counts(facts),
        "faults": [asdict(fault) for fault in faults],
        "recomputed": recomputed and {"chips": recomputed.chips, "largest": recomputed.largest},
    }
    print(json.dumps(answer, indent=2) if args.json else as_text(answer))
    return 1 if faults else 0


def as_text(answer: dict[str, Any]) -> str:
    """Return counts, a table of the faults' kinds, and the first faults of each kind.

    Args:
        answer: The object that `--json` prints.
    """
    from clay_assets.state.estimate import human_size
    from clay_assets.verify.faults import KINDS
    from clay_assets.verify.recompute import TOLERANCE

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


def _counts(tiles: "Sequence[TileFacts]") -> dict[str, int]:
    files = [file for facts in tiles for file in facts.files]
    return {
        "tiles": len(tiles),
        "empty": sum(not facts.chips for facts in tiles),
        "unusable": sum(bool(facts.unusable) for facts in tiles),
        "chips": sum(len(facts.chips) for facts in tiles),
        "files": len(files),
        "rows": sum(file.rows for file in files),
        "skipped": sum(file.count("skipped") for file in files),
        "bytes": sum(file.file.size for file in files),
    }


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number from 0")
    return int(text)
