"""Reports on tiles: stored, so that an unchanged tile is not read again, and summed over tiles."""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from clay_assets.storage import ObjectMissing, Store

REPORT_VERSION = 2
"""Increased when a check changes: reports of other versions are then recomputed."""

Part = Literal["inventory", "results", "file"]
"""Subject of a report: a tile's inventory, its results, or its published file."""


@dataclass(frozen=True)
class Report:
    """Findings about one tile.

    Attributes:
        tile: MGRS code.
        examined: State of the object that was read, from its ETag; "" if there is none.
        faults: Faults by the name of the check.
        numbers: Reported whether a check passes or not, by the name of the check.
        missing: Why nothing could be read; "" if it could.
        version: `REPORT_VERSION`.
    """

    tile: str
    examined: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing: str = ""
    version: int = REPORT_VERSION


def report_key(tile: str, part: Part) -> str:
    """Return the key of a tile's report in the work store."""
    return f"checks/{tile}.{part}.json"


def stored_report(work: Store, tile: str, part: Part, state: str) -> Report | None:
    """Load the report on an object in this state; None if there is none, or another tile's or version's.

    Raises:
        StorageError: If the store refuses.
    """
    try:
        report = Report(**json.loads(work.read(report_key(tile, part))))
        entries = [*report.faults.values(), *report.numbers.values()]
    except (ObjectMissing, ValueError, TypeError, AttributeError):  # another version's, or damaged
        return None
    usable = all(isinstance(entry, str | dict) for entry in entries)
    current = (report.tile, report.examined, report.version) == (tile, state, REPORT_VERSION)
    return report if usable and current else None


def store_report(work: Store, report: Report, part: Part) -> None:
    """Store a report for the next run.

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
"""How the numbers of many tiles are combined; all others are added up."""


def combined(reports: Iterable[Report], check: str) -> dict[str, Any]:
    """Combine the numbers of a check over many tiles."""
    values: dict[str, list[Any]] = {}
    for report in reports:
        for name, value in report.numbers.get(check, {}).items():
            values.setdefault(name, []).append(value)
    return {name: COMBINE.get(name, sum)(found) for name, found in values.items()}
