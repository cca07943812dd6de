import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from clay_assets.chips import READER_VERSION
from clay_assets.results import Target, results_key
from clay_assets.state import STATES, Rate, SurveyCache, TileState, TileStores, summarize, survey
from clay_assets.storage import BucketMissing, FolderMissing, ObjectChanged, Store, StoredObject
from clay_assets_tests.s3_server import S3Bucket
from clay_assets_tests.tile_scene import (
    FINGERPRINT,
    MadeUp,
    damage_pages,
    embedded_at_level,
    finish,
    put_chips,
    target_of,
)

TARGET = target_of()


@pytest.fixture(params=["folder", "s3"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> TileStores:
    if request.param == "folder":
        (tmp_path / "chips").mkdir()
        return TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    bucket: S3Bucket = request.getfixturevalue("bucket")
    return TileStores(*(bucket.store(name) for name in ("chips", "work", "output")))


def state_of(
    stores: TileStores, tile: str = "27WXN", target: Target | None = TARGET, version: int = 1
) -> TileState:
    (state,) = survey(stores, [tile], target, version)
    return state


def test_a_tile_goes_from_empty_to_new_to_unpublished_to_current(stores: TileStores) -> None:
    empty = state_of(stores)
    assert (empty.state, empty.chips, empty.to_embed) == ("empty", 0, 0)

    put_chips(stores, "27WXN", [1, 2, 3])
    new = state_of(stores)
    assert (new.state, new.chips, new.bytes, new.to_embed, new.to_embed_bytes) == ("new", 3, 18, 3, 18)
    assert new.rate is None

    MadeUp(seconds=2).store(stores, "27WXN")
    unpublished = state_of(stores)
    assert (unpublished.state, unpublished.to_embed) == ("unpublished", 0)

    finish(stores, "27WXN", MadeUp(seconds=2))
    current = state_of(stores)
    assert (current.state, current.chips, current.to_embed, current.to_embed_bytes) == ("current", 3, 0, 0)
    assert current.rate is not None
    assert current.rate == Rate(chips=3, seconds=2, model="clay-v0-small", device="cpu")


def test_new_changed_and_removed_chips_are_counted(stores: TileStores) -> None:
    finish(stores, "27WXN", chips=4)
    before = state_of(stores)
    put_chips(stores, "27WXN", [2], content=b"processed once more")
    put_chips(stores, "27WXN", [5, 6])
    stores.chips.delete(f"27WXN/2020-06-15/{'claytile_27WXN_20200615_v02_0004.tif'}")

    changed = state_of(stores)

    assert changed.state == "changed"
    assert changed.detail == "2 new, 1 changed, 1 removed"
    assert (changed.chips, changed.to_embed, changed.to_embed_bytes) == (5, 3, 19 + 6 + 6)
    assert changed.chips_digest != before.chips_digest
    assert changed.inputs == before.inputs


def test_damaged_results_count_as_none(stores: TileStores) -> None:
    finish(stores, "27WXN", chips=2)
    put_chips(stores, "27WXN", [3])
    damage_pages(stores.work, "27WXN", "etag")

    assert (state_of(stores).state, state_of(stores).to_embed) == ("new", 3)


def test_a_tile_that_only_lost_chips_is_changed_with_nothing_to_embed(stores: TileStores) -> None:
    finish(stores, "27WXN")
    stores.chips.delete("27WXN/2020-06-15/claytile_27WXN_20200615_v02_0001.tif")
    changed = state_of(stores)
    assert (changed.state, changed.to_embed, changed.detail) == ("changed", 0, "1 removed")


def test_a_tile_whose_chips_were_all_skipped_is_unusable_until_they_change(stores: TileStores) -> None:
    put_chips(stores, "27WXN", [1, 2])
    MadeUp(skipped=2).store(stores, "27WXN")
    unusable = state_of(stores)
    assert (unusable.state, unusable.to_embed, unusable.detail) == ("unusable", 0, "the file ends early")

    put_chips(stores, "27WXN", [2], content=b"repaired")
    assert state_of(stores).state == "changed"


def test_an_interrupted_tile_is_not_current_even_if_its_remaining_chips_were_removed(tmp_path: Path) -> None:
    stores = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    put_chips(stores, "27WXN", [1, 2])
    MadeUp(remaining=3).store(stores, "27WXN")
    interrupted = state_of(stores)
    assert (interrupted.state, interrupted.to_embed, interrupted.detail) == ("changed", 0, "unfinished")


@pytest.mark.parametrize(
    "target",
    [
        target_of(replace(FINGERPRINT, model="clay-v1.5-small")),
        target_of(replace(FINGERPRINT, level="patch")),
        target_of(replace(FINGERPRINT, precision="bf16")),
        target_of(replace(FINGERPRINT, preprocessing=99)),
        target_of(replace(FINGERPRINT, checkpoint_sha256="d" * 64)),
        None,
    ],
    ids=["model", "level", "precision", "preprocessing", "checkpoint", "a checkpoint that no run has used"],
)
def test_results_of_other_settings_are_stale_and_named(tmp_path: Path, target: Target | None) -> None:
    stores = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    finish(stores, "27WXN")
    stale = state_of(stores, target=target)
    assert (stale.state, stale.to_embed, stale.inputs) == ("stale", 3, "")
    assert stale.detail == f"embedded as {FINGERPRINT.folder}"
    assert state_of(stores).state == "current"  # changing back costs nothing


def test_new_chips_in_a_stale_tile_are_to_be_embedded_with_all_others(tmp_path: Path) -> None:
    stores = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    put_chips(stores, "27WXN", [1, 2, 3])
    MadeUp(fingerprint=embedded_at_level("patch")).store(stores, "27WXN")
    put_chips(stores, "27WXN", [4])
    assert (state_of(stores).state, state_of(stores).to_embed) == ("stale", 4)


@pytest.mark.parametrize("made", [MadeUp(reader=READER_VERSION - 1), MadeUp(max_nodata=0.5)])
def test_results_that_a_run_would_rewrite_without_embedding_are_changed(tmp_path: Path, made: MadeUp) -> None:
    stores = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    finish(stores, "27WXN", made)
    assert (state_of(stores).state, state_of(stores).to_embed) == ("changed", 0)


def test_a_moved_folder_of_chips_is_unpublished_with_nothing_to_embed(tmp_path: Path) -> None:
    stores = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    finish(stores, "27WXN")
    (tmp_path / "chips").rename(tmp_path / "archive")
    moved = replace(stores, chips=Store(tmp_path / "archive"))
    assert (state_of(moved).state, state_of(moved).to_embed) == ("unpublished", 0)


def test_a_published_file_of_earlier_results_or_of_another_version_does_not_count(stores: TileStores) -> None:
    finish(stores, "27WXN")
    assert state_of(stores, version=2).state == "unpublished"

    put_chips(stores, "27WXN", [4])
    MadeUp().store(stores, "27WXN")
    assert state_of(stores).state == "unpublished"


def test_a_tile_with_a_second_file_of_other_dates_is_not_current(tmp_path: Path) -> None:
    stores = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    finish(stores, "27WXN")
    stores.output.write("27WXN_20190101_20200615_v001.gpq", b"left by a run that was killed")
    assert state_of(stores).state == "unpublished"


def test_a_published_file_that_is_not_parquet_is_not_current(tmp_path: Path) -> None:
    stores = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    finish(stores, "27WXN")
    stores.output.write("27WXN_20200615_20200615_v001.gpq", b"not a Parquet file")
    assert state_of(stores).state == "unpublished"


def test_a_store_that_cannot_be_listed_is_an_error_and_not_an_empty_tile(
    tmp_path: Path, bucket: S3Bucket
) -> None:
    with pytest.raises(FolderMissing, match="Create it, or correct the address"):
        state_of(TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output"))))
    missing = Store("s3://no-such-bucket-of-ours/chips", bucket.options)
    with pytest.raises(BucketMissing, match="no-such-bucket-of-ours"):
        state_of(TileStores(missing, bucket.store("work"), bucket.store("output")))


class CountingStore(Store):
    """A store that counts its requests."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.requests: Counter[str] = Counter()
        self._counting = threading.Lock()

    def list(self, prefix: str = "") -> list[StoredObject]:  # noqa: D102
        with self._counting:
            self.requests["list"] += 1
        return super().list(prefix)

    def open(self, target: StoredObject | str):  # type: ignore[no-untyped-def]  # noqa: ANN201, D102
        with self._counting:
            self.requests["open"] += 1
        return super().open(target)

    def read(self, target: StoredObject | str) -> bytes:  # noqa: D102
        raise AssertionError(f"{target} was read whole")


TEN = [f"27WX{letter}" for letter in "ABCDEFGHJK"]


@pytest.fixture
def counting(tmp_path: Path) -> TileStores:
    """Ten current tiles, in stores that count requests from now on."""
    plain = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    for tile in TEN:
        finish(plain, tile, chips=1)
    return TileStores(*(CountingStore(tmp_path / name) for name in ("chips", "work", "output")))


def requests_of(stores: TileStores) -> list[dict[str, int]]:
    """Requests to chips, work and output since the last call."""
    counts = []
    for store in (stores.chips, stores.work, stores.output):
        assert isinstance(store, CountingStore)
        counts.append(dict(store.requests))
        store.requests.clear()
    return counts


def test_a_tile_costs_one_list_and_two_footers_and_with_a_cache_one_list_until_it_changes(
    counting: TileStores,
) -> None:
    cache: SurveyCache = {}

    first = survey(counting, TEN, TARGET, 1, cache)

    assert [state.tile for state in first] == TEN
    assert {state.state for state in first} == {"current"}
    assert requests_of(counting) == [{"list": 10}, {"list": 1, "open": 10}, {"list": 1, "open": 10}]
    assert survey(counting, TEN, TARGET, 1, cache) == first
    assert requests_of(counting) == [{"list": 10}, {"list": 1}, {"list": 1}]

    put_chips(counting, TEN[3], [2])
    again = survey(counting, TEN, TARGET, 1, cache)
    assert [state.tile for state in again if state.state == "changed"] == [TEN[3]]
    assert requests_of(counting) == [{"list": 10}, {"list": 1, "open": 1}, {"list": 1}]


def test_a_cached_state_is_used_only_while_chips_results_file_and_settings_stay_the_same(
    tmp_path: Path,
) -> None:
    stores = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    finish(stores, TEN[0], chips=1)
    cache: SurveyCache = {}

    def state(target: Target | None = TARGET, version: int = 1) -> str:
        (found,) = survey(stores, TEN[:1], target, version, cache)
        return found.state

    (chip,) = stores.chips.list(f"{TEN[0]}/")
    (published,) = stores.output.list(TEN[0])
    assert state() == "current"
    assert state(target_of(embedded_at_level("patch"))) == "stale"
    assert state(None) == "stale"
    assert state(target_of(max_nodata=0.5)) == "changed"
    assert state(version=2) == "unpublished"
    assert state() == "current"
    stores.chips.write(chip.url, b"processed again")
    assert state() == "changed"
    MadeUp().store(stores, TEN[0])
    assert state() == "unpublished"
    finish(stores, TEN[0], chips=1)
    assert state() == "current"
    stores.output.delete(published)
    assert state() == "unpublished"
    stores.work.delete(results_key(TEN[0], FINGERPRINT))
    assert state() == "new"
    stores.chips.delete(chip)
    assert state() == "empty"


def test_a_cached_state_may_vanish_during_the_survey(tmp_path: Path) -> None:
    class Vanishing(dict[str, tuple[str, TileState]]):
        """Loses a tile as soon as it was looked up, as another survey's thread might remove it."""

        def __contains__(self, tile: object) -> bool:
            return self.pop(str(tile), None) is not None

        def get(self, tile: str, default: Any = None) -> Any:  # noqa: ANN401 - as dict
            return self.pop(tile, default)

    stores = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    finish(stores, TEN[0], chips=1)
    cache = Vanishing()
    first = survey(stores, TEN[:1], TARGET, 1, cache)

    assert survey(stores, TEN[:1], TARGET, 1, cache) == first
    assert cache == {}  # the cached state was used, not stored again


def test_a_file_that_could_not_be_read_is_read_again_by_the_next_survey(tmp_path: Path) -> None:
    class BusyStore(Store):
        busy = True

        def open(self, target: StoredObject | str) -> BinaryIO:
            if self.busy:
                raise ObjectChanged("it is being replaced")
            return super().open(target)

    output = BusyStore(tmp_path / "output")
    stores = TileStores(Store(tmp_path / "chips"), Store(tmp_path / "work"), output)
    finish(replace(stores, output=Store(tmp_path / "output")), TEN[0], chips=1)
    cache: SurveyCache = {}
    assert [state.state for state in survey(stores, TEN[:1], TARGET, 1, cache)] == ["unpublished"]
    output.busy = False
    assert [state.state for state in survey(stores, TEN[:1], TARGET, 1, cache)] == ["current"]


def test_the_summary_lists_states_that_need_work_first(tmp_path: Path) -> None:
    (tmp_path / "chips").mkdir()
    stores = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    finish(stores, "27WXM")
    put_chips(stores, "27WXN", [1])
    states = survey(stores, ["27WXM", "27WXN", "27WXP"], TARGET, 1)
    assert summarize(states, "s3://b/p") == "checked 3 tiles under s3://b/p: 1 new, 1 current, 1 empty"
    assert summarize([], "s3://b/p") == "checked 0 tiles under s3://b/p: no tiles"
    assert {state.state for state in states} < set(STATES)
