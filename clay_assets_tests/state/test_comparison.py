"""Comparison of chips and results: new, changed and removed chips, and skips to read again."""

from collections.abc import Sequence

import pytest

from clay_assets.chips import READER_VERSION
from clay_assets.results import KnownChip, Provenance, ResultsHeader, TileSummary, chip_key, chips_digest
from clay_assets.state.comparison import Comparison, compare, is_complete
from clay_assets.storage import StoredObject
from clay_assets_tests.tile_scene import FINGERPRINT

TILE = "27WXN"
LIMIT = 0.3


def chip(number: int, etag: str = "etag", *, under: str = "s3://b") -> StoredObject:
    return StoredObject(f"{under}/{TILE}/2020-06-15/claytile_27WXN_20200615_v02_{number:04}.tif", 9, etag)


def header(
    chips: Sequence[StoredObject],
    *,
    remaining: int = 0,
    reader: int = READER_VERSION,
    max_nodata: float = LIMIT,
) -> ResultsHeader:
    provenance = Provenance(
        FINGERPRINT, (256,), untrained=False, device="cpu", reader=reader, max_nodata=max_nodata
    )
    summary = TileSummary(len(chips), [], 1.0, len(chips), 9, [0.0, 0.0, 1.0, 1.0])
    return ResultsHeader(provenance, chips_digest(TILE, chips), summary, remaining=remaining)


def row(
    of: StoredObject,
    reason: str | None = None,
    *,
    reader: int = READER_VERSION,
    nodata: float = 0.0,
    window: int = 0,
) -> KnownChip:
    share = nodata if reason is None else None
    return KnownChip(chip_key(of.url, TILE), of.etag, window, reason, reader, share)


def compared(
    chips: Sequence[StoredObject],
    rows: Sequence[KnownChip],
    *,
    max_nodata: float = LIMIT,
    made_with: float = LIMIT,
    retry_skipped: bool = False,
) -> Comparison:
    made = header(chips, max_nodata=made_with)
    return compare(TILE, chips, made, rows, max_nodata=max_nodata, retry_skipped=retry_skipped)


def test_results_of_the_same_chips_are_complete_in_any_order() -> None:
    chips = [chip(1), chip(2)]
    assert is_complete(TILE, chips, header(chips[::-1]), max_nodata=LIMIT)


def test_chips_moved_to_another_bucket_count_as_unchanged() -> None:
    moved = [chip(1, under="/mnt/archive/chips"), chip(2, under="/mnt/archive/chips")]
    rows = [row(chip(1)), row(chip(2))]
    assert is_complete(TILE, moved, header([chip(1), chip(2)]), max_nodata=LIMIT)
    assert compared(moved, rows) == Comparison([], [0, 1], "unfinished")


@pytest.mark.parametrize(
    "made",
    [
        header([chip(1)]),
        header([chip(1), chip(2), chip(3)]),
        header([chip(1), chip(2, "old")]),
        header([chip(1), chip(2)], remaining=1),
        header([chip(1), chip(2)], reader=READER_VERSION - 1),
        header([chip(1), chip(2)], max_nodata=0.9),
        header([chip(1), chip(2)], max_nodata=0.1),
    ],
    ids=[
        "a chip is missing",
        "one too many",
        "another state",
        "from a run that was stopped",
        "of an older reader",
        "more no-data was allowed",
        "less no-data was allowed",
    ],
)
def test_results_that_differ_from_chips_reader_or_limit_are_incomplete(made: ResultsHeader) -> None:
    assert not is_complete(TILE, [chip(1), chip(2)], made, max_nodata=LIMIT)


def test_new_changed_and_removed_chips_are_distinguished() -> None:
    chips = [chip(1), chip(2, "new state"), chip(3), chip(5), chip(6)]
    rows = [row(chip(number)) for number in (4, 3, 2, 1)]

    found = compared(chips, rows)

    assert found.to_embed == [chip(2, "new state"), chip(5), chip(6)]
    assert found.kept == [1, 3]  # not the rows of the removed chip and of the earlier state
    assert found.why == "2 new, 1 changed, 1 removed"


def test_unfinished_results_are_rewritten_if_their_remaining_chips_were_removed() -> None:
    assert compared([chip(1)], [row(chip(1))]) == Comparison([], [0], "unfinished")


def test_all_windows_of_a_chip_are_kept_or_dropped_together() -> None:
    windows = [row(chip(number), window=window) for number in (1, 2) for window in range(4)]

    found = compared([chip(1), chip(2, "new state")], windows)

    assert (found.to_embed, found.kept) == ([chip(2, "new state")], [0, 1, 2, 3])


def test_a_newer_reader_reads_skipped_chips_again_and_keeps_vectors() -> None:
    chips = [chip(1), chip(2), chip(3)]
    older = READER_VERSION - 1
    rows = [row(chip(1), reader=older), row(chip(2), "layout", reader=older), row(chip(3), "layout")]

    found = compared(chips, rows)

    assert (found.to_embed, found.kept, found.why) == ([chip(2)], [0, 2], "1 to read again")


def test_retry_skipped_reads_skipped_chips_again() -> None:
    chips = [chip(1), chip(2)]

    found = compared(chips, [row(chip(1)), row(chip(2), "unreadable")], retry_skipped=True)

    assert (found.to_embed, found.kept, found.why) == ([chip(2)], [0], "1 to read again")


@pytest.mark.parametrize(
    ("made_with", "max_nodata", "todo"),
    [
        (0.3, 0.5, [3]),  # 3 was skipped; it may have at most 0.5
        (0.3, 0.1, [2]),  # 2 was embedded with 0.2 and must be skipped; 3 stays skipped
        (0.3, 0.2, []),  # 2 has exactly the limit
        (0.3, 0.3, []),
    ],
    ids=["more is allowed", "less is allowed", "exactly a chip's share", "the same"],
)
def test_another_limit_of_no_data_reads_only_affected_chips_again(
    made_with: float, max_nodata: float, todo: list[int]
) -> None:
    chips = [chip(number) for number in (1, 2, 3, 4)]
    rows = [row(chip(1)), row(chip(2), nodata=0.2), row(chip(3), "nodata"), row(chip(4), "format")]

    found = compared(chips, rows, made_with=made_with, max_nodata=max_nodata)

    assert found.to_embed == [chip(number) for number in todo]
    assert len(found.kept) == 4 - len(todo)
