"""What is to do of a tile: its chips compared with its results, for runs, schedules and estimates alike.

Pure: what was listed and what was read comes in, nothing is fetched here.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clay_assets.results import ResultsHeader
from clay_assets.results.fingerprint import chips_digest
from clay_assets.storage import StoredObject


@dataclass(frozen=True)
class Comparison:
    """What is to do of a tile.

    Attributes:
        todo: Chips to embed, in the order of the inventory.
        kept: Rows of the results that are still valid, in the file's order.
        removed: Results of chips that are gone or changed.
        complete: Whether the results are those of the chips, none missing and none to drop.
        why: What differs, for a person; "" where nothing does.
    """

    todo: Sequence[StoredObject]
    kept: Sequence[int] = ()
    removed: int = 0
    complete: bool = False
    why: str = ""


def is_complete(header: ResultsHeader, chips: Sequence[StoredObject]) -> bool:
    """Whether a header says that its file accounts for exactly these chips, from a run that was not stopped.

    Results of a stopped run stay incomplete also when the chips it did not reach are gone from the bucket:
    they are written once more, so that they can be published.
    """
    return header.digest == chips_digest(chips) and not header.left


def compare(
    chips: Sequence[StoredObject],
    header: ResultsHeader | None,
    rows: Iterable[tuple[str, str]] = (),
    differences: str = "",
) -> Comparison:
    """Compare a tile's chips with its results.

    Args:
        chips: The tile's inventory.
        header: Of its results; None where there are none.
        rows: URL and ETag of each row of the results; not needed where `is_complete`.
        differences: How the results differ from the settings; any difference makes all of them stale.

    Returns:
        What to embed, what to keep, and why.
    """
    if header is None:
        return Comparison(todo=chips, why="no results")
    if differences:
        return Comparison(todo=chips, removed=header.summary.chips, why=differences)
    if is_complete(header, chips):
        return Comparison(todo=(), complete=True)
    places = {chip: row for row, chip in enumerate(rows)}
    known = {url for url, _ in places}
    todo = [chip for chip in chips if (chip.url, chip.etag) not in places]
    kept = sorted(places[chip.url, chip.etag] for chip in chips if (chip.url, chip.etag) in places)
    counts = Counter("changed" if chip.url in known else "new" for chip in todo)
    counts["removed"] = len(known - {chip.url for chip in chips})
    named = [f"{counts[kind]} {kind}" for kind in ("new", "changed", "removed") if counts[kind]]
    # "unfinished": since then exactly the chips that the stopped run did not reach were removed.
    return Comparison(todo, kept, len(places) - len(kept), why=", ".join(named) or "unfinished")
