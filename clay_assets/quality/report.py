"""Reports on a tile's inventory, results and published file, and their sums over tiles.

Reports are stored, so that an unchanged tile is not read again. The checks raise `StorageError` if a store
refuses.
"""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, field
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from clay_assets.parquet import DamagedFileError
from clay_assets.quality.files import judge_file
from clay_assets.quality.vectors import ACCOUNT, Verdict, judge_vectors
from clay_assets.results import Target, TileResults, chips_digest, results_key
from clay_assets.storage import ObjectMissing, Store, StoredObject

HAS_CHIPS = "tile_has_chips"

REPORT_VERSION = 2  # increased when a check changes: reports of other versions are then recomputed

Part = Literal["inventory", "results", "file"]  # what of a tile is examined


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Report:
    """Findings about one tile."""

    tile: str
    examined: str = ""  # state of the object that was read, from its ETag; "" if there is none
    faults: Mapping[str, str] = field(default_factory=dict)  # by the name of the check
    # Reported whether a check passes or not, by the name of the check.
    numbers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing: str = ""  # why nothing could be read; "" if it could
    version: int = REPORT_VERSION


def check_inventory(tile: str, inventory: Sequence[StoredObject]) -> Report:
    """Report whether a tile has chips."""
    return Report(tile, faults={} if inventory else {HAS_CHIPS: "has no chips"})


def check_results(
    work: Store, tile: str, inventory: Sequence[StoredObject], target: Target | None, *, again: bool = False
) -> Report:
    """Examine the results that count as current for a target (None: none do), or return the stored report.

    With `again`, results are read even if a report on their present state exists.
    """
    for fingerprint in target.fingerprints if target else ():
        with suppress(ObjectMissing):
            etag = work.stat(results_key(tile, fingerprint)).etag
            break
    else:
        return Report(tile, missing="has no results")
    state = f"{etag} {chips_digest(tile, inventory)}"  # not the inventory's ETag: every run rewrites it
    if not again and (report := _stored_report(work, tile, "results", state)):
        return report
    results = TileResults.open(work, tile, fingerprint)
    if results is None:
        return Report(tile, missing="has no results")
    with results:
        try:
            verdicts = judge_vectors(tile, results, inventory)
        except DamagedFileError:  # chips with unreadable results are not accounted for
            fault = "has damaged results: embed it again with force"
            return Report(tile, faults={ACCOUNT: fault}, missing=fault)
    return _new_report(work, tile, "results", state, verdicts)


def check_file(
    work: Store, output: Store, tile: str, files: Sequence[StoredObject], *, again: bool = False
) -> Report:
    """Examine the one file of a tile and version, or return the stored report.

    With `again`, the file is read even if a report on its present state exists.
    """
    if not files:
        return Report(tile, missing="has no published file")
    state = " ".join(file.etag for file in files)
    if not again and (report := _stored_report(work, tile, "file", state)):
        return report
    return _new_report(work, tile, "file", state, judge_file(output, tile, files))


def _key(tile: str, part: Part) -> str:
    return f"checks/{tile}.{part}.json"


def _stored_report(work: Store, tile: str, part: Part, state: str) -> Report | None:
    """Load the report on an object in this state; None if there is none."""
    with suppress(ObjectMissing, ValueError, TypeError):  # none, another version's, or damaged
        report = Report(**json.loads(work.read(_key(tile, part))))
        if (report.tile, report.examined, report.version) == (tile, state, REPORT_VERSION):
            return report
    return None


def _new_report(work: Store, tile: str, part: Part, state: str, verdicts: Mapping[str, Verdict]) -> Report:
    """Make a report, and store it for the next run."""
    faults = {check: fault for check, (fault, _) in verdicts.items() if fault}
    report = Report(tile, state, faults, {check: numbers for check, (_, numbers) in verdicts.items()})
    work.write(_key(tile, part), json.dumps(asdict(report)).encode())
    return report


def combined(reports: Iterable[Report], check: str) -> dict[str, Any]:
    """Combine the numbers of a check over many tiles."""
    values: dict[str, list[Any]] = {}
    for report in reports:
        for name, value in report.numbers.get(check, {}).items():
            values.setdefault(name, []).append(value)
    return {name: _combine(name, found) for name, found in values.items()}


def _combine(name: str, values: list[Any]) -> str | float:
    """Combine values by the first word of their name, by default into their sum; list different texts."""
    if isinstance(values[0], str):
        return ", ".join(sorted(set(values)))
    ways: dict[str, Callable[[list[Any]], float]] = {
        "smallest": min,
        "median": statistics.median,
        "largest": max,
        "furthest": max,
    }
    return ways.get(name.split()[0], sum)(values)
