"""Asset checks: names, descriptions, severities, and how the reports of many tiles become one result.

`quality` defines what is checked and what is a fault. The op that materializes the assets evaluates the
checks, so that they cover the finished tiles even if the run fails. No check is blocking: publishing itself
refuses a tile that must not be read. Checks are unpartitioned, because Dagster 1.13 records one evaluation
without a partition for a run over a range.
https://docs.dagster.io/guides/test/asset-checks
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import dagster as dg

from clay_assets.dagster.metadata import table
from clay_assets.quality import files, vectors
from clay_assets.quality.report import HAS_CHIPS, Part, Report, combined

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR

# Descriptions of the checks, by their asset, the part of a tile that they examine and their severity.
TABLE: Mapping[tuple[str, Part, dg.AssetCheckSeverity], Mapping[str, str]] = {
    ("chip_inventory", "inventory", WARN): {
        HAS_CHIPS: "The tile has chips. A warning: open sea has none, and such a tile is recorded with 0"
        " chips.",
    },
    ("chip_embeddings", "results", ERROR): {
        vectors.ACCOUNT: "Each chip of the inventory is either embedded or skipped, once. An error: readers"
        " cannot tell that a file lacks chips, so publishing refuses such a tile.",
        "vectors_finite_and_of_the_right_width": "Vectors have no NaN, no infinity, and the width of the"
        " model and the level. An error: publishing refuses such a tile.",
    },
    ("chip_embeddings", "results", WARN): {
        "norms_plausible": "Each vector's norm is within {} to {:.0f}, and within {} to {} times the median"
        " of its tile. A warning: unusual land may explain it.".format(*vectors.NORMS, *vectors.NORM_RATIOS),
        "no_two_rows_alike": "No two chips of a tile have identical vectors, as place and date are inputs of"
        " each. A warning: usually the bucket holds the same file twice.",
        "not_collapsed": f"In a tile of {vectors.ENOUGH_TO_COMPARE} chips or more the median pairwise cosine"
        f" is at most {vectors.COLLAPSED_COSINE} and the effective rank at least"
        f" {vectors.COLLAPSED_RANK:.0f}. Both: equal vectors with rounding noise have a high rank, and"
        " vectors along one line a low cosine. A warning: chips of open sea are similar, too.",
    },
    ("embeddings_geoparquet", "file", ERROR): {
        files.VALID: "Every row is readable and conforms to GeoParquet 1.0.0 and to the file's name and"
        " footer.",
        files.INSIDE: "No footprint extends beyond its Sentinel-2 tile, as located by the MGRS code, by more"
        f" than {files.MAX_OVERHANG:,.0f} m, the width of a chip.",
        files.ONE_MODEL: "All files of a published version hold vectors of one checkpoint at one level.",
    },
}

CHECKS = tuple(
    dg.AssetCheckSpec(name, asset=asset, description=text)
    for (asset, _, _), checks in TABLE.items()
    for name, text in checks.items()
)
PARTS = {name: part for (_, part, _), checks in TABLE.items() for name in checks}
SEVERITIES = {name: severity for (_, _, severity), checks in TABLE.items() for name in checks}


def log_checks(context: dg.AssetExecutionContext, reports: Collection[Mapping[Part, Report]]) -> None:
    """Record the results of the run's checks, from the reports on each finished tile by the part checked."""
    for check in CHECKS:
        if check.key in context.selected_asset_check_keys:
            part = PARTS[check.name]
            result = _result(check, [parts[part] for parts in reports if part in parts])
            context.log_event(result.to_asset_check_evaluation(context.get_step_execution_context()))


def _result(check: dg.AssetCheckSpec, reports: Sequence[Report]) -> dg.AssetCheckResult:
    faults = {report.tile: report.faults[check.name] for report in reports if check.name in report.faults}
    if check.name == files.ONE_MODEL:
        faults |= _of_another_model(reports)
    missing = [{"tile": report.tile, "reason": report.missing} for report in reports if report.missing]
    checked = [report for report in reports if not report.missing]
    count = f"{len(checked)} tiles"
    named = ", ".join(list(faults)[:5]) + (" …" if len(faults) > 5 else "")
    return dg.AssetCheckResult(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=not faults,
        severity=SEVERITIES[check.name],
        description=f"{len(faults)} of {count}: {named}" if faults else f"{count} have no fault",
        metadata={
            "tiles checked": len(checked),
            **combined(checked, check.name),
            "bad tiles": table([{"tile": tile, "fault": fault} for tile, fault in faults.items()]),
            "not checked": table(missing),
        },
    )


def _of_another_model(reports: Sequence[Report]) -> dict[str, str]:
    """Return the tiles whose file was made with another model than most files, with that model."""
    found = {report.tile: report.numbers.get(files.ONE_MODEL) for report in reports}
    made = {tile: str(numbers["models"]) for tile, numbers in found.items() if numbers}
    ((usual, _),) = Counter(made.values()).most_common(1) or [("", 0)]
    return {
        tile: f"holds {model}, most of these tiles {usual}" for tile, model in made.items() if model != usual
    }
