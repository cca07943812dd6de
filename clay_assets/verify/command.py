"""The command `clay verify`: options, the answer as text and as JSON, exit status."""

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from clay_assets.cli_options import Subparsers, add_tiles, add_where

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clay_assets.embedding.encoders import EncoderSettings
    from clay_assets.state.states import TileStores
    from clay_assets.verify.faults import Fault, TileFacts
    from clay_assets.verify.recompute import Recomputed

FAULTS_SHOWN = 20
"""Faults of each kind that the text lists; the JSON has all."""


def add_parser(commands: Subparsers) -> None:
    """Adds `verify` to the commands of `clay`."""
    parser = commands.add_parser(
        "verify",
        help="compare the published files with the bucket and the settings",
        description="Compare the published files with the chips of the bucket and the settings: missing tiles"
        " and chips, stale, orphaned and damaged files, mixed models. Reads listings and footers, unless more"
        " is asked for. The exit status is 0 without faults, 1 with faults, 2 if there is no answer.",
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
    """Verifies and prints.

    Args:
        args: Options of `add_parser`.
        stores: Chips, work and published files.
        tiles: MGRS codes.
        encoder: Settings of the network.
        version: Version of the published files.

    Returns:
        The exit status: 0 without faults, 1 with faults, 2 without an answer; stderr says why.

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
        found = gather(stores, tiles, target, version, deep=args.deep)
        faults = find_faults(found.tiles, found.orphans, target)
        recomputed = None
        if args.recompute:
            bad = {fault.tile for fault in faults}
            good = [facts for facts in found.tiles if facts.tile not in bad]
            recomputed = recompute(stores, good, target, encoder, count=args.recompute, seed=args.seed)
            faults += recomputed.faults
    except CheckpointError as error:
        print(f"clay: {error}", file=sys.stderr)
        return 2
    wanted = target.preferred
    model = f"{wanted.model} {wanted.level} {wanted.checkpoint_sha256[:12]}"
    answer = Answer(stores.output.uri, model, found.tiles, faults, args.deep, recomputed)
    print(answer.as_json() if args.json else answer.as_text())
    return 1 if faults else 0


@dataclass(frozen=True)
class Answer:
    """What `clay verify` prints.

    Attributes:
        where: Address of the output.
        model: Model, level and the first 12 digits of the checkpoint's hash, as the settings want them.
        tiles: Facts about the manifest's tiles.
        faults: All faults.
        deep: Whether every row was read.
        recomputed: Result of the sample; None without one.
    """

    where: str
    model: str
    tiles: "Sequence[TileFacts]"
    faults: "Sequence[Fault]"
    deep: bool
    recomputed: "Recomputed | None"

    def as_json(self) -> str:
        """One JSON object with every fault."""
        answer: dict[str, Any] = {
            "where": self.where,
            "model": self.model,
            "ok": not self.faults,
            "deep": self.deep,
            "counts": self._counts(),
            "faults": [asdict(fault) for fault in self.faults],
            "recomputed": None,
        }
        if self.recomputed is not None:
            answer["recomputed"] = {"chips": self.recomputed.chips, "largest": self.recomputed.largest}
        return json.dumps(answer, indent=2)

    def as_text(self) -> str:
        """Counts, a table of the faults' kinds, and the first faults of each kind."""
        from clay_assets.state.estimate import human_size
        from clay_assets.verify.faults import KINDS
        from clay_assets.verify.recompute import TOLERANCE

        counts = self._counts()
        lines = [
            f"{self.where}, for {self.model}: read {'every row' if self.deep else 'listings and footers'}",
            f"{counts['tiles']:,} tiles ({counts['empty']:,} without chips, {counts['unusable']:,} without a"
            f" usable one), {counts['chips']:,} chips",
            f"{counts['files']:,} files, {counts['rows']:,} rows, {counts['skipped']:,} chips skipped,"
            f" {human_size(counts['bytes'])}",
        ]
        if self.recomputed is not None:
            limits = ", ".join(f"{limit:g} {name}" for name, limit in TOLERANCE.items())
            lines.append(
                f"{self.recomputed.chips:,} chips embedded again: relative distance at most"
                f" {self.recomputed.largest:.2g} (tolerance {limits})"
            )
        by_kind = {kind: [fault for fault in self.faults if fault.kind == kind] for kind in KINDS}
        by_kind = {kind: faults for kind, faults in by_kind.items() if faults}
        if not by_kind:
            return "\n".join([*lines, "", "No faults: the output matches the bucket and the settings."])
        lines += ["", f"{'fault':<14} {'count':>7}"]
        lines += [f"{kind:<14} {len(faults):>7,}  {KINDS[kind]}" for kind, faults in by_kind.items()]
        for kind, faults in by_kind.items():
            for fault in faults[:FAULTS_SHOWN]:
                name = fault.url.rpartition("/")[2] or fault.tile
                lines.append(f"  {kind}: {name + ': ' if name else ''}{fault.what}")
            if len(faults) > FAULTS_SHOWN:
                lines.append(f"  {kind}: {len(faults) - FAULTS_SHOWN:,} more; --json names all")
        return "\n".join([*lines, "", f"{len(self.faults):,} faults"])

    def _counts(self) -> Counter[str]:
        files = [file for facts in self.tiles for file in facts.files]
        return Counter(
            tiles=len(self.tiles),
            empty=sum(not facts.chips for facts in self.tiles),
            unusable=sum(bool(facts.unusable) for facts in self.tiles),
            chips=sum(len(facts.chips) for facts in self.tiles),
            files=len(files),
            rows=sum(file.rows for file in files),
            skipped=sum(file.count("skipped") for file in files),
            bytes=sum(file.file.size for file in files),
        )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number from 0")
    return int(text)
