"""Compares a tile's chips with its results: which chips to embed, which rows to keep, and why.

Runs, schedules and estimates share it. Pure functions: the caller lists and reads.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from clay_assets.chips import READER_VERSION
from clay_assets.results import KnownChip, ResultsHeader, chip_key, chips_digest
from clay_assets.storage import StoredObject


@dataclass(frozen=True)
class Comparison:
    """What a run would do for a tile."""

    to_embed: Sequence[StoredObject]  # in the order of the inventory
    kept: Sequence[int]  # rows of the results that are still valid, in the file's order
    why: str  # what differs, as text for people


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
    rows: Sequence[KnownChip],
    *,
    max_nodata: float,
    retry_skipped: bool = False,
) -> Comparison:
    """Compare a tile's chips with its results; `retry_skipped`: read skipped chips again."""
    more_allowed = max_nodata > header.provenance.max_nodata

    def is_valid(row: KnownChip) -> bool:
        if row.reason is None:
            return row.nodata is None or row.nodata <= max_nodata
        is_allowed_now = row.reason == "nodata" and more_allowed
        return not (is_allowed_now or retry_skipped or row.reader < READER_VERSION)

    valid: dict[tuple[str, str], list[int]] = defaultdict(list)  # one row per window of a chip
    for index, row in enumerate(rows):
        if is_valid(row):
            valid[row.key, row.etag].append(index)
    keys = [(chip_key(chip.url, tile), chip.etag) for chip in chips]
    known, unchanged = {row.key for row in rows}, {(row.key, row.etag) for row in rows}
    to_embed: list[StoredObject] = []
    counts: Counter[str] = Counter()
    for chip, key in zip(chips, keys, strict=True):
        if key not in valid:
            to_embed.append(chip)
            counts["new" if key[0] not in known else "to read again" if key in unchanged else "changed"] += 1
    counts["removed"] = len(known - {key for key, _ in keys})
    kept = sorted(index for key in keys for index in valid.get(key, ()))
    kinds = ("new", "changed", "to read again", "removed")
    # "unfinished": the chips that an interrupted run did not reach, and only those, were deleted since.
    why = ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind]) or "unfinished"
    return Comparison(to_embed, kept, why)
