"""Examines a tile's inventory, results and published file; returns the stored report if it is current."""

from collections.abc import Sequence
from contextlib import suppress

from clay_assets.parquet import DamagedFileError
from clay_assets.quality.files import examine_file
from clay_assets.quality.report import Report, store_report, stored_report
from clay_assets.quality.vectors import ACCOUNT, judge_vectors
from clay_assets.results import TileResults, results_key
from clay_assets.results.fingerprint import chips_digest
from clay_assets.results.target import Target
from clay_assets.storage import ObjectMissing, Store, StoredObject

HAS_CHIPS = "tile_has_chips"


def check_inventory(tile: str, inventory: Sequence[StoredObject]) -> Report:
    """Report whether a tile has chips."""
    return Report(tile, faults={} if inventory else {HAS_CHIPS: "has no chips"})


def check_results(
    work: Store, tile: str, inventory: Sequence[StoredObject], target: Target | None, *, again: bool = False
) -> Report:
    """Examine the results that count as current for a target (None: none do), or return the stored report.

    With `again`, results are read even if a report on their present state exists.

    Raises:
        StorageError: If the store refuses.
    """
    for fingerprint in target.fingerprints if target else ():
        with suppress(ObjectMissing):
            etag = work.stat(results_key(tile, fingerprint)).etag
            break
    else:
        return Report(tile, missing="has no results")
    state = f"{etag} {chips_digest(tile, inventory)}"  # not the inventory's ETag: every run rewrites it
    report = None if again else stored_report(work, tile, "results", state)
    if report is None:
        report = _examine_results(TileResults.open(work, tile, fingerprint), tile, inventory, state)
        store_report(work, report, "results")
    return report


def check_file(
    work: Store, output: Store, tile: str, files: Sequence[StoredObject], *, again: bool = False
) -> Report:
    """Examine the one file of a tile and version, or return the stored report.

    With `again`, the file is read even if a report on its present state exists.

    Raises:
        StorageError: If a store refuses.
    """
    report = None
    if len(files) == 1 and not again:
        report = stored_report(work, tile, "file", files[0].etag)
    if report is None:
        report = examine_file(output, tile, files)
        store_report(work, report, "file")
    return report


def _examine_results(
    results: TileResults | None, tile: str, inventory: Sequence[StoredObject], state: str
) -> Report:
    if results is None:
        return Report(tile, missing="has no results")
    with results:
        try:
            verdicts = judge_vectors(tile, results, inventory)
        except DamagedFileError:  # chips with unreadable results are not accounted for
            fault = "has damaged results: embed it again with force"
            return Report(tile, faults={ACCOUNT: fault}, missing=fault)
    return Report(
        tile,
        examined=state,
        faults={check: fault for check, (fault, _) in verdicts.items() if fault},
        numbers={check: numbers for check, (_, numbers) in verdicts.items()},
    )
