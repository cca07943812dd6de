from collections.abc import Sequence

import pytest

from clay_assets.results import Making, ResultsHeader, TileSummary
from clay_assets.results.fingerprint import chips_digest
from clay_assets.state.comparison import Comparison, compare, is_complete
from clay_assets.storage import StoredObject
from clay_assets_tests.tile_scene import FINGERPRINT


def chip(number: int, etag: str = "etag") -> StoredObject:
    return StoredObject(f"s3://b/27WXN/2020-06-15/claytile_27WXN_20200615_v02_{number:04}.tif", 9, etag)


def header(chips: Sequence[StoredObject], left: int = 0) -> ResultsHeader:
    making = Making(FINGERPRINT, (256,), "clay-v0-tiny", untrained=False, device="cpu")
    summary = TileSummary(len(chips), [], 1.0, len(chips), 9, [0.0, 0.0, 1.0, 1.0])
    return ResultsHeader(making, chips_digest(chips), summary, left=left)


def compared(
    chips: Sequence[StoredObject], results: Sequence[StoredObject], left: int = 0, differences: str = ""
) -> Comparison:
    rows = [(result.url, result.etag) for result in results]
    return compare(chips, header(results, left), rows, differences)


def test_results_of_the_same_chips_are_complete_in_any_order() -> None:
    chips = [chip(1), chip(2)]
    assert is_complete(header(chips), chips[::-1])
    assert compared(chips, chips[::-1]) == Comparison(todo=(), complete=True)


def test_rows_are_not_needed_where_results_are_complete() -> None:
    def rows() -> None:
        raise AssertionError("they were read")
        yield

    assert compare([chip(1)], header([chip(1)]), rows()).complete  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("results", "left"),
    [
        ([chip(1)], 0),
        ([chip(1), chip(2), chip(3)], 0),
        ([chip(1), chip(2, "old")], 0),
        ([chip(1), chip(2)], 1),
    ],
    ids=["a chip is missing", "one too many", "another state", "from a run that was stopped"],
)
def test_results_are_incomplete(results: list[StoredObject], left: int) -> None:
    assert not is_complete(header(results, left), [chip(1), chip(2)])
    assert not compared([chip(1), chip(2)], results, left).complete


def test_chips_without_results_are_all_to_embed() -> None:
    chips = [chip(1), chip(2)]
    assert compare(chips, None) == Comparison(todo=chips, why="no results")


def test_any_difference_in_the_making_makes_all_results_stale() -> None:
    chips = [chip(1), chip(2)]
    stale = compared(chips, chips, differences="level mean, wanted patch")
    assert stale == Comparison(todo=chips, removed=2, why="level mean, wanted patch")


def test_new_changed_and_removed_chips_are_told_apart() -> None:
    chips = [chip(1), chip(2, "new state"), chip(3), chip(5), chip(6)]
    results = [chip(4), chip(3), chip(2), chip(1)]

    found = compared(chips, results)

    assert found.todo == [chip(2, "new state"), chip(5), chip(6)]
    assert found.kept == [1, 3]
    assert found.removed == 2  # the row of the chip that is gone, and of the earlier state
    assert found.why == "2 new, 1 changed, 1 removed"


def test_unfinished_results_whose_other_chips_are_gone_are_written_once_more() -> None:
    assert compared([chip(1)], [chip(1)], left=2) == Comparison(todo=[], kept=[0], why="unfinished")
