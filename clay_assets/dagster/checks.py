"""Asset checks: names, descriptions, severities, and how the reports of many tiles become one result.

`quality` defines what is checked and what is a fault. The op that materializes the assets evaluates the
checks, so that they cover the finished tiles even if the run fails. No check is blocking: publishing itself
refuses a tile that must not be read. Checks are unpartitioned, because Dagster 1.13 records one evaluation
without a partition for a run over a range.
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
        name: Name in Dagster.
        asset: Name of the asset.
        source: The report with its faults.
        severity: Severity of a failure.
        description: Description in Dagster.
    """

    name: str
    asset: str
    source: Part
    severity: dg.AssetCheckSeverity
    description: str

    @property
    def spec(self) -> dg.AssetCheckSpec:
        """The check as a Dagster spec."""
        return dg.AssetCheckSpec(self.name, asset=self.asset, description=self.description)


CHECKS = (
    TileCheck(
        HAS_CHIPS,
        "chip_inventory",
        "inventory",
        WARN,
        "The tile has chips. A warning: open sea has none, and such a tile is recorded with 0 chips.",
    ),
    TileCheck(
        "every_chip_accounted_for",
        "chip_embeddings",
        "results",
        ERROR,
        "Each chip of the inventory is either embedded or skipped, once. An error: readers cannot tell that a"
        " file lacks chips, so publishing refuses such a tile.",
    ),
    TileCheck(
        "vectors_finite_and_of_the_right_width",
        "chip_embeddings",
        "results",
        ERROR,
        "Vectors have no NaN, no infinity, and the width of the model and the level. An error: publishing"
        " refuses such a tile.",
    ),
    TileCheck(
        "norms_plausible",
        "chip_embeddings",
        "results",
        WARN,
        "Each vector's norm is within {} to {:.0f}, and within {} to {} times the median of its tile. A"
        " warning: unusual land may explain it.".format(*vectors.NORMS, *vectors.NORM_RATIOS),
    ),
    TileCheck(
        "no_two_rows_alike",
        "chip_embeddings",
        "results",
        WARN,
        "No two chips of a tile have identical vectors, as place and date are inputs of each. A warning:"
        " usually the bucket holds the same file twice.",
    ),
    TileCheck(
        "not_collapsed",
        "chip_embeddings",
        "results",
        WARN,
        f"In a tile of {vectors.ENOUGH_TO_COMPARE} chips or more the median pairwise cosine is at most"
        f" {vectors.COLLAPSED_COSINE} and the effective rank at least {vectors.COLLAPSED_RANK:.0f}. Both:"
        " equal vectors with rounding noise have a high rank, and vectors along one line a low cosine. A"
        " warning: chips of open sea are similar, too.",
    ),
    TileCheck(
        files.VALID,
        "embeddings_geoparquet",
        "file",
        ERROR,
        "Every row is readable and conforms to GeoParquet 1.0.0 and to the file's name and footer.",
    ),
    TileCheck(
        files.INSIDE,
        "embeddings_geoparquet",
        "file",
        ERROR,
        "No footprint extends beyond its Sentinel-2 tile, as located by the MGRS code, by more than"
        f" {files.MAX_OVERHANG:,.0f} m, the width of a chip.",
    ),
    TileCheck(
        files.ONE_MODEL,
        "embeddings_geoparquet",
        "file",
        ERROR,
        "All files of a published version hold vectors of one checkpoint at one level.",
    ),
)


def check_results(
    selected: Collection[dg.AssetCheckKey], reports: Collection[Mapping[Part, Report]]
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the selected checks.

    Args:
        selected: The run's checks.
        reports: Reports on each finished tile, by the part checked.
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
    """Return the tiles whose file was made with another model than most files, with that model."""
    made = {
        report.tile: str(report.numbers[files.ONE_MODEL]["models"])
        for report in reports
        if report.numbers.get(files.ONE_MODEL)
    }
    ((usual, _),) = Counter(made.values()).most_common(1) or [("", 0)]
    return {
        tile: f"holds {model}, most of these tiles {usual}" for tile, model in made.items() if model != usual
    }
