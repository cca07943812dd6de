"""How a check says what it found about a run's tiles: passed or not, numbers either way, bad tiles by name.

Checks carry no partitions: Dagster 1.13 records one evaluation for a run over a range, without its
partitions, and leaves a planned one open for each. So one evaluation covers all tiles of a run.
https://docs.dagster.io/guides/test/asset-checks
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from clay_assets.dagster.metadata import table


@dataclass
class Verdict:
    """What one check has to say.

    Attributes:
        key: Of the check.
        severity: Of a failure.
        looked_at: How many tiles.
        not_looked_at: Why not, by tile: the asset itself failed on them, and says so.
        faults: What is wrong, by tile.
        numbers: Reported whether the check passes or not.
    """

    key: dg.AssetCheckKey
    severity: dg.AssetCheckSeverity
    looked_at: int
    not_looked_at: Mapping[str, str]
    faults: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)

    def result(self) -> dg.AssetCheckResult:
        """As Dagster wants it."""
        named = ", ".join(list(self.faults)[:5]) + (" …" if len(self.faults) > 5 else "")
        passed = not self.faults
        count = f"{self.looked_at} tiles"
        return dg.AssetCheckResult(
            asset_key=self.key.asset_key,
            check_name=self.key.name,
            passed=passed,
            severity=self.severity,
            description=f"{count} are in order" if passed else f"{len(self.faults)} of {count}: {named}",
            metadata={
                "tiles looked at": self.looked_at,
                **self.numbers,
                "bad tiles": _by_tile(self.faults, "fault"),
                "not looked at": _by_tile(self.not_looked_at, "reason"),
            },
        )


def tiles_of_run(context: dg.AssetCheckExecutionContext, manifest: Sequence[str]) -> Sequence[str]:
    """The tiles that a check is to look at: those of the run, or all where it was launched without any."""
    step = context.op_execution_context
    return step.partition_keys if step.has_partitions else manifest


def _by_tile(texts: Mapping[str, str], column: str) -> dg.MetadataValue:
    return table([{"tile": tile, column: text} for tile, text in texts.items()])
