"""Asset checks: names, descriptions, severities, and how the reports of many tiles become one result.

What is examined, and what is a fault, is in `quality`. The op that makes the assets evaluates the checks, so
that they cover the finished tiles also of a run that fails. None blocks: publishing itself refuses a tile
that must not be read. Checks have no partitions: Dagster 1.13 records one evaluation for a run over a range,
without them.
https://docs.dagster.io/guides/test/asset-checks
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from clay_assets.dagster.metadata import table
from clay_assets.quality import files, vectors
from clay_assets.quality.examine import HAS_CHIPS
from clay_assets.quality.report import Part, Report, combined

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


@dataclass(frozen=True)
class TileCheck:
    """One check.

    Attributes:
        name: In Dagster.
        asset: Name of the asset.
        source: Which report has its faults.
        severity: Of a failure.
        description: In Dagster.
    """

    name: str
    asset: str
    source: Part
    severity: dg.AssetCheckSeverity
    description: str

    @property
    def spec(self) -> dg.AssetCheckSpec:
        """As Dagster wants it."""
        return dg.AssetCheckSpec(self.name, asset=self.asset, description=self.description)


CHECKS = (
    TileCheck(
        HAS_CHIPS,
        "chip_inventory",
        "inventory",
        WARN,
        "The tile has chips. A warning: open sea has none; such a tile is recorded with 0 chips.",
    ),
    TileCheck(
        "every_chip_accounted_for",
        "chip_embeddings",
        "results",
        ERROR,
        "Embedded and skipped chips are the inventory's, each once. An error: a file that lacks chips looks"
        " like any other to its readers, so publishing refuses such a tile.",
    ),
    TileCheck(
        "vectors_finite_and_of_the_right_width",
        "chip_embeddings",
        "results",
        ERROR,
        "No NaN, no infinity, and as many numbers as the model and the level give. An error:"
        " publishing refuses such a tile.",
    ),
    TileCheck(
        "norms_plausible",
        "chip_embeddings",
        "results",
        WARN,
        "Each norm is within {} to {:.0f}, and within {} to {} times the median of its tile. A warning:"
        " unusual land may explain it.".format(*vectors.NORMS, *vectors.NORM_RATIOS),
    ),
    TileCheck(
        "no_two_rows_alike",
        "chip_embeddings",
        "results",
        WARN,
        "No two chips of a tile have the same vector, number by number: place and date go into each. A"
        " warning: mostly the bucket holds the same file twice.",
    ),
    TileCheck(
        "not_collapsed",
        "chip_embeddings",
        "results",
        WARN,
        f"In a tile of {vectors.ENOUGH_TO_COMPARE} chips or more the median pairwise cosine is at most"
        f" {vectors.COLLAPSED_COSINE} and the effective rank at least {vectors.COLLAPSED_RANK:.0f}. Both:"
        " equal vectors with rounding noise have a high rank, and vectors along one line a low cosine. A"
        " warning: open sea is alike, too.",
    ),
    TileCheck(
        files.VALID,
        "embeddings_geoparquet",
        "file",
        ERROR,
        "Every row can be read, and is as GeoParquet 1.0.0 and the file's name and footer say.",
    ),
    TileCheck(
        files.INSIDE,
        "embeddings_geoparquet",
        "file",
        ERROR,
        "No footprint reaches out of its Sentinel-2 tile, as the MGRS code places it, by more"
        f" than {files.MAX_OVERHANG:,.0f} m, the width of a chip.",
    ),
    TileCheck(
        files.ONE_MODEL,
        "embeddings_geoparquet",
        "file",
        ERROR,
        "The files of a published version hold vectors of one checkpoint at one level.",
    ),
)


def check_results(
    selected: Collection[dg.AssetCheckKey], reports: Collection[Mapping[Part, Report]]
) -> Iterator[dg.AssetCheckResult]:
    """What the selected checks found.

    Args:
        selected: Checks of the run.
        reports: Of each finished tile, by what was read.
    """
    for check in CHECKS:
        if check.spec.key in selected:
            yield _result(check, [parts[check.source] for parts in reports if check.source in parts])


def _result(check: TileCheck, reports: Sequence[Report]) -> dg.AssetCheckResult:
    faults = {report.tile: report.faults[check.name] for report in reports if check.name in report.faults}
    if check.name == files.ONE_MODEL:
        faults |= _of_another_model(reports)
    missing = {report.tile: report.missing for report in reports if report.missing}
    checked = [report for report in reports if not report.missing]
    count = f"{len(checked)} tiles"
    named = ", ".join(list(faults)[:5]) + (" …" if len(faults) > 5 else "")
    metadata = {
        "tiles checked": len(checked),
        **combined(checked, check.name),
        "bad tiles": table([{"tile": tile, "fault": fault} for tile, fault in faults.items()]),
        "not checked": table([{"tile": tile, "reason": reason} for tile, reason in missing.items()]),
    }
    return dg.AssetCheckResult(
        asset_key=check.spec.asset_key,
        check_name=check.name,
        passed=not faults,
        severity=check.severity,
        description=f"{len(faults)} of {count}: {named}" if faults else f"{count} have no fault",
        metadata=metadata,
    )


def _of_another_model(reports: Sequence[Report]) -> dict[str, str]:
    """Tiles whose file was made otherwise than most, with how it was made."""
    made = {
        report.tile: str(report.numbers[files.ONE_MODEL]["models"])
        for report in reports
        if report.numbers.get(files.ONE_MODEL)
    }
    ((usual, _),) = Counter(made.values()).most_common(1) or [("", 0)]
    return {
        tile: f"holds {model}, most of these tiles {usual}" for tile, model in made.items() if model != usual
    }
