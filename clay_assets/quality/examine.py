"""Examine a tile: its results and its published file, read again and judged, or reported from before."""

from collections.abc import Sequence
from contextlib import suppress

from clay_assets.parquet import DamagedFileError
from clay_assets.quality.files import examine_file
from clay_assets.quality.judges import JUDGES
from clay_assets.quality.report import Report, store_report, stored_report
from clay_assets.quality.vectors import read_facts
from clay_assets.results import TileResults, results_key
from clay_assets.results.fingerprint import chips_digest
from clay_assets.results.target import Target
from clay_assets.storage import ObjectMissing, Store, StoredObject

HAS_CHIPS = "tile_has_chips"


def check_inventory(tile: str, inventory: Sequence[StoredObject]) -> Report:
    """Tell whether a tile has chips.

    Args:
        tile: MGRS code.
        inventory: Its chips.
    """
    return Report(tile, faults={} if inventory else {HAS_CHIPS: "has no chips"})


def check_results(
    work: Store,
    tile: str,
    inventory: Sequence[StoredObject],
    target: Target | None,
    *,
    again: bool = False,
) -> Report:
    """Examine a tile's results.

    Args:
        work: Store of results and reports.
        tile: MGRS code.
        inventory: Its chips, which the results are to account for.
        target: Which results count as current; None: none do.
        again: Read them also where a report on their present state exists.

    Raises:
        StorageError: If the store refuses.
    """
    for fingerprint in target.fingerprints if target else ():
        with suppress(ObjectMissing):
            etag = work.stat(results_key(tile, fingerprint)).etag
            break
    else:
        return Report(tile, missing="has no results")
    state = f"{etag} {chips_digest(tile, inventory)}"  # an inventory is written anew by every run
    report = None if again else stored_report(work, tile, "results", state)
    if report is None:
        report = _examine_results(TileResults.open(work, tile, fingerprint), tile, inventory, state)
        store_report(work, report, "results")
    return report


def check_file(
    work: Store, output: Store, tile: str, files: Sequence[StoredObject], *, again: bool = False
) -> Report:
    """Examine a tile's published file.

    Args:
        work: Store of reports.
        output: Store of published files.
        tile: MGRS code.
        files: The files of the tile and version; there should be one.
        again: Read it also where a report on its present state exists.

    Raises:
        StorageError: If a store refuses.
    """
    one = len(files) == 1
    report = stored_report(work, tile, "file", files[0].etag) if one and not again else None
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
            facts = read_facts(tile, results, inventory)
        except DamagedFileError:  # what cannot be read accounts for no chip
            fault = "has damaged results: embed it again with force"
            return Report(tile, faults={"every_chip_accounted_for": fault}, missing=fault)
    verdicts = {check: judge(facts) for check, judge in JUDGES.items()}
    return Report(
        tile,
        examined=state,
        faults={check: fault for check, (fault, _) in verdicts.items() if fault},
        numbers={check: numbers for check, (_, numbers) in verdicts.items()},
    )
