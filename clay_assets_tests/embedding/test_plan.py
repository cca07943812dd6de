from clay_assets.embedding.plan import TilePlan
from clay_assets.results import Making, ResultsHeader, TileSummary
from clay_assets.results.fingerprint import Fingerprint, chips_digest
from clay_assets.storage import StoredObject

CHIPS = [StoredObject("s3://b/27WXN/claytile_27WXN_20200615_v02_0001.tif", 9_000_000, "etag")]


def header(left: int) -> ResultsHeader:
    fingerprint = Fingerprint("0" * 64, "mean", "fp32", 1)
    making = Making(fingerprint, (256,), "clay-v0-tiny", False, "cpu")
    summary = TileSummary(1, [], 1.0, 1, 9_000_000, [0.0, 0.0, 1.0, 1.0])
    return ResultsHeader(making, chips_digest(CHIPS), summary, left=left)


def test_results_of_a_run_that_came_to_its_end_are_current() -> None:
    assert TilePlan("27WXN", CHIPS, header(left=0)).is_current


def test_unfinished_results_are_not_current_even_if_the_chips_they_lack_are_gone() -> None:
    assert not TilePlan("27WXN", CHIPS, header(left=2)).is_current
