"""What the checks found about one tile, stored so that an unchanged tile is not read again.

Belongs here: the report, its storage, and how the numbers of many tiles are combined. Does not belong here:
what is a fault (`vectors`, `files`), or how Dagster is told (`dagster.checks`).
"""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from clay_assets.storage import ObjectMissing, Store

REPORT_VERSION = 2
"""Raised when a check changes: reports of another version are made again."""

Part = Literal["inventory", "results", "file"]
"""What a report is about: a tile's inventory, its results, or its published file."""


@dataclass(frozen=True)
class Report:
    """What was found about one tile.

    Attributes:
        tile: MGRS code.
        examined: ETag of the object that was read; "" where there is none.
        faults: What is wrong, by the name of the check.
        numbers: Reported whether a check passes or not, by the name of the check.
        missing: Why there was nothing to read; "" where there was.
        version: `REPORT_VERSION`.
    """

    tile: str
    examined: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing: str = ""
    version: int = REPORT_VERSION


def report_key(tile: str, part: Part) -> str:
    """Key of a tile's report in the work store."""
    return f"checks/{tile}.{part}.json"


def stored_report(work: Store, tile: str, part: Part, etag: str) -> Report | None:
    """The report on an object in its present state; None where there is none, or another tile's or version's.

    Raises:
        StorageError: If the store refuses.
    """
    try:
        report = Report(**json.loads(work.read(report_key(tile, part))))
        by_check = [*report.faults.values(), *report.numbers.values()]
    except (
        ObjectMissing,
        ValueError,
        TypeError,
        AttributeError,
    ):  # of another version, or damaged: made again
        return None
    usable = all(isinstance(value, str | dict) for value in by_check)
    is_it = (report.tile, report.examined, report.version) == (tile, etag, REPORT_VERSION)
    return report if usable and is_it else None


def store_report(work: Store, report: Report, part: Part) -> None:
    """Keep a report for the next run.

    Raises:
        StorageError: If the store refuses.
    """
    work.write(report_key(report.tile, part), json.dumps(asdict(report)).encode())


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))


COMBINE: Mapping[str, Callable[[Iterable[Any]], Any]] = {
    "shapes": _distinct,
    "models": _distinct,
    "smallest norm": min,
    "median norm": statistics.median,
    "largest norm": max,
    "largest median cosine": max,
    "smallest effective rank": min,
    "furthest out of a tile, m": max,
}
"""How the numbers of many tiles become one; those not named here are added up."""


def combined(reports: Iterable[Report], check: str) -> dict[str, Any]:
    """The numbers of a check over many tiles."""
    values: dict[str, list[Any]] = {}
    for report in reports:
        for name, value in report.numbers.get(check, {}).items():
            values.setdefault(name, []).append(value)
    return {name: COMBINE.get(name, sum)(found) for name, found in values.items()}
