"""Compares a tile's chips with its results: which chips to embed, which rows to keep, and why.

Runs, schedules and estimates share it. Pure functions: the caller lists and reads.
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
    """What a run would do for a tile.

    Attributes:
        to_embed: Chips to embed, in the order of the inventory.
        kept: Rows of the results that are still valid, in the file's order.
        removed: Number of rows of deleted or changed chips.
        why: What differs, as text for people.
    """

    to_embed: Sequence[StoredObject]
    kept: Sequence[int]
    removed: int
    why: str


def is_complete(
    tile: str, chips: Sequence[StoredObject], header: ResultsHeader, *, max_nodata: float
) -> bool:
    """Return whether results cover exactly these chips, by a finished run with this reader and `max_nodata`.

    Results of an interrupted run stay incomplete even if the chips that it did not reach have been deleted
    since: a run must write the results once more before they can be published.
    """
    provenance = header.provenance
    return (
        header.digest == chips_digest(tile, chips)
        and not header.remaining
        and (provenance.reader, provenance.max_nodata) == (READER_VERSION, max_nodata)
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
        header: Header of the results.
        rows: Rows of the results.
        max_nodata: Highest share of a chip's pixels without data.
        retry_skipped: Read skipped chips again.

    Returns:
        The chips to embed and the rows to keep.
    """
    stricter = header.provenance.max_nodata > max_nodata

    def is_valid(row: KnownChip) -> bool:
        if row.reason is None:
            return row.nodata is None or row.nodata <= max_nodata
        if row.reason == "nodata" and not stricter and header.provenance.max_nodata != max_nodata:
            return False
        return not retry_skipped and row.reader >= READER_VERSION

    found = list(rows)
    valid: dict[tuple[str, str], list[int]] = defaultdict(list)  # one row per window of a chip
    for index, row in enumerate(found):
        if is_valid(row):
            valid[row.key, row.etag].append(index)
    known = {row.key for row in found}
    keys = [(chip_key(chip.url, tile), chip.etag) for chip in chips]
    to_embed = [chip for chip, key in zip(chips, keys, strict=True) if key not in valid]
    kept = sorted(index for key in keys if key in valid for index in valid[key])
    unchanged = {(row.key, row.etag) for row in found}
    counts: Counter[str] = Counter()
    for key in keys:
        if key not in valid:
            counts["new" if key[0] not in known else "to read again" if key in unchanged else "changed"] += 1
    counts["removed"] = len(known - {key for key, _ in keys})
    kinds = ("new", "changed", "to read again", "removed")
    named = [f"{counts[kind]} {kind}" for kind in kinds if counts[kind]]
    # "unfinished": the chips that an interrupted run did not reach, and only those, were deleted since.
    return Comparison(to_embed, kept, len(found) - len(kept), ", ".join(named) or "unfinished")
