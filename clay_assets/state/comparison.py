"""What is to do of a tile: its chips compared with its results, for runs, schedules and estimates alike.

Pure: what was listed and what was read comes in, nothing is fetched here.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clay_assets.chips import READER_VERSION
from clay_assets.results import KnownChip, ResultsHeader
from clay_assets.results.fingerprint import chip_key, chips_digest
from clay_assets.storage import StoredObject


@dataclass(frozen=True)
class Comparison:
    """What is to do of a tile.

    Attributes:
        todo: Chips to embed, in the order of the inventory.
        kept: Rows of the results that are still valid, in the file's order.
        removed: Rows of chips that are gone or changed.
        why: What differs, for a person.
    """

    todo: Sequence[StoredObject]
    kept: Sequence[int]
    removed: int
    why: str


def is_complete(
    tile: str, chips: Sequence[StoredObject], header: ResultsHeader, *, max_nodata: float
) -> bool:
    """Whether results account for exactly these chips, read as they would be read now, by a finished run.

    Results of a stopped run stay incomplete also when the chips it did not reach are gone from the bucket:
    they are written once more, so that they can be published.
    """
    making = header.provenance
    return (
        header.digest == chips_digest(tile, chips)
        and not header.remaining
        and (making.reader, making.max_nodata) == (READER_VERSION, max_nodata)
    )


def compare(
    tile: str,
    chips: Sequence[StoredObject],
    header: ResultsHeader,
    rows: Iterable[KnownChip],
    *,
    max_nodata: float,
    retry_skipped: bool = False,
) -> Comparison:
    """Compare a tile's chips with its results.

    Args:
        tile: MGRS code.
        chips: Its inventory.
        header: Of the results.
        rows: Of the results.
        max_nodata: Highest share of a chip's pixels without data.
        retry_skipped: Read skipped chips again.

    Returns:
        What to embed, what to keep, and why.
    """
    stricter = header.provenance.max_nodata > max_nodata

    def is_valid(row: KnownChip) -> bool:
        if row.reason is None:
            return row.nodata is None or row.nodata <= max_nodata
        if row.reason == "nodata" and not stricter and header.provenance.max_nodata != max_nodata:
            return False
        return not retry_skipped and row.reader >= READER_VERSION

    found = list(rows)
    places: dict[tuple[str, str], list[int]] = defaultdict(list)  # a row for each window
    for place, row in enumerate(found):
        if is_valid(row):
            places[row.key, row.etag].append(place)
    known = {row.key for row in found}
    keys = [(chip_key(chip.url, tile), chip.etag) for chip in chips]
    todo = [chip for chip, key in zip(chips, keys, strict=True) if key not in places]
    kept = sorted(place for key in keys if key in places for place in places[key])
    again = {(row.key, row.etag) for row in found}
    counts: Counter[str] = Counter()
    for key in keys:
        if key not in places:
            counts["new" if key[0] not in known else "to read again" if key in again else "changed"] += 1
    counts["removed"] = len(known - {key for key, _ in keys})
    kinds = ("new", "changed", "to read again", "removed")
    named = [f"{counts[kind]} {kind}" for kind in kinds if counts[kind]]
    # "unfinished": since then exactly the chips that the stopped run did not reach were removed.
    return Comparison(todo, kept, len(found) - len(kept), ", ".join(named) or "unfinished")
