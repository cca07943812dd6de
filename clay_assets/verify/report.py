"""The answer of `clay verify`: a table for people, JSON for machines."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from clay_assets.state.estimate import human_size
from clay_assets.verify.facts import KINDS, Fault, TileFacts
from clay_assets.verify.recompute import TOLERANCE, Recomputed

FAULTS_SHOWN = 20
"""Of each kind, in the table; JSON has all."""


@dataclass(frozen=True)
class Verified:
    """What was looked at and found.

    Attributes:
        where: Address of the output.
        model: That the settings call for: model, level and the beginning of the checkpoint's hash.
        tiles: What was seen.
        faults: What is wrong.
        deep: Whether every row was read.
        recomputed: What came of the sample; None where none was asked for.
    """

    where: str
    model: str
    tiles: Sequence[TileFacts]
    faults: Sequence[Fault]
    deep: bool = False
    recomputed: Recomputed | None = None

    @property
    def counts(self) -> dict[str, int]:
        """The output in numbers."""
        files = [file for facts in self.tiles for file in facts.files]
        return {
            "tiles": len(self.tiles),
            "empty": sum(not facts.chips for facts in self.tiles),
            "unusable": sum(bool(facts.unusable) for facts in self.tiles),
            "chips": sum(len(facts.chips) for facts in self.tiles),
            "files": len(files),
            "rows": sum(file.rows for file in files),
            "skipped": sum(file.count("skipped") for file in files),
            "bytes": sum(file.file.size for file in files),
        }


def as_text(verified: Verified) -> str:
    """What was found, a line each."""
    counts = verified.counts
    read = "every row" if verified.deep else "listings and footers"
    lines = [
        f"{verified.where}, for {verified.model}: read {read}",
        f"{counts['tiles']:,} tiles ({counts['empty']:,} without chips, {counts['unusable']:,} without a"
        f" usable one), {counts['chips']:,} chips",
        f"{counts['files']:,} files, {counts['rows']:,} rows, {counts['skipped']:,} chips skipped,"
        f" {human_size(counts['bytes'])}",
    ]
    if verified.recomputed is not None:
        done, limits = (
            verified.recomputed,
            ", ".join(f"{limit:g} {name}" for name, limit in TOLERANCE.items()),
        )
        lines.append(
            f"{done.chips:,} chips embedded again: at most {done.largest:.2g} away, {len(done.faults)} beyond"
            f" the tolerance ({limits})"
        )
    kinds = Counter(fault.kind for fault in verified.faults)
    if kinds:
        lines += ["", f"{'fault':<14} {'count':>7}  "]
    for kind, meaning in KINDS.items():
        if kinds[kind]:
            lines.append(f"{kind:<14} {kinds[kind]:>7,}  {meaning}")
    for kind in KINDS:
        found = [fault for fault in verified.faults if fault.kind == kind]
        lines += [f"  {_line(fault)}" for fault in found[:FAULTS_SHOWN]]
        if len(found) > FAULTS_SHOWN:
            lines.append(f"  {kind}: {len(found) - FAULTS_SHOWN:,} more; --json names all")
    lines += ["", f"{len(verified.faults):,} faults" if kinds else "The output is what is called for."]
    return "\n".join(line.rstrip() for line in lines)


def as_json(verified: Verified) -> str:
    """The same as one JSON object."""
    done = verified.recomputed
    return json.dumps(
        {
            "where": verified.where,
            "model": verified.model,
            "ok": not verified.faults,
            "deep": verified.deep,
            "counts": verified.counts,
            "faults": [asdict(fault) for fault in verified.faults],
            "recomputed": None if done is None else {"chips": done.chips, "largest": done.largest},
        },
        indent=2,
    )


def _line(fault: Fault) -> str:
    name = fault.url.rpartition("/")[2] or fault.tile
    return f"{fault.kind}: {name + ': ' if name else ''}{fault.what}"
