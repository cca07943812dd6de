import datetime
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from clay_assets.chips.place import Place
from clay_assets.embedding.stream import ChipStream, EncodingFailed, ready_chips
from clay_assets.embedding.stream.chip_stream import BATCHES_AHEAD, OUTCOMES_AHEAD_BYTES
from clay_assets.embedding.stream.device_loop import FIRST_CHIPS, DeviceLoop, StreamClock
from clay_assets.embedding.stream.ready_chips import ReadyChip, ReadyQueue
from clay_assets.results.outcomes import Embedded, Outcome, Skipped
from clay_assets.storage import StoredObject, TransferFailed
from clay_assets_tests.embedding.streaming import (
    BROKEN,
    TILES,
    MeanEmbedder,
    chip_of_value,
    number_of,
    sources,
    within,
)
from clay_assets_tests.geotiffs import chip_bytes, chip_pixels, good_chip
from clay_model import Dimensions, Embedder, Level, load_encoder, read_checkpoint

TIMEOUT = 60  # seconds after which a test counts as deadlocked


def stream_of(
    tiles: dict[str, int],
    read: Callable[[StoredObject], bytes],
    *embedders: Embedder,
    batch_size: int = 2,
    fetchers: int = 2,
) -> ChipStream:
    """A stream of these tiles, given with their number of chips."""
    stream = open_stream(read, *embedders, batch_size=batch_size, fetchers=fetchers)
    for tile, count in tiles.items():
        stream.add(tile, sources(tile, count))
    stream.finish()
    return stream


def open_stream(
    read: Callable[[StoredObject], bytes], *embedders: Embedder, batch_size: int = 2, fetchers: int = 2
) -> ChipStream:
    """A stream to which tiles can be added."""
    return ChipStream(
        read=read,
        embedders=embedders or [MeanEmbedder()],
        level="mean",
        batch_size=batch_size,
        fetchers=fetchers,
        decoders=1,
    )


def by_number(chip: StoredObject) -> bytes:
    """A chip with its number as its pixels."""
    return chip_of_value(number_of(chip))


def ready_chip(number: int) -> ReadyChip:
    """A decoded chip with its number as its pixels."""
    return ReadyChip(
        tile="27WXN",
        source=sources("27WXN", number + 1)[number],
        pixels=torch.full((1, 13, 512, 512), float(number)),
        windows=(Place((10.0, 50.0), b""),),
        date=datetime.date(2020, 6, 15),
        time=None,
        thumbnails=(b"",),
        nodata=0.0,
        outcome=Future(),
    )


def value(outcome: Outcome) -> float:
    assert isinstance(outcome, Embedded), outcome
    return float(outcome.vectors[0, 0])


@pytest.fixture
def pixels_in_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the decoded chips of this test that are in memory."""
    decoded: list[weakref.ref[Tensor]] = []
    to_tensor = ready_chips._to_tensor

    def register(pixels: NDArray[Any], *, for_gpu: bool) -> Tensor:
        tensor = to_tensor(pixels, for_gpu=for_gpu)
        decoded.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(ready_chips, "_to_tensor", register)
    return lambda: sum(reference() is not None for reference in decoded)


def test_outcomes_are_in_the_order_of_the_chips_regardless_of_transfer_times() -> None:
    rng = np.random.default_rng(1)

    def read(chip: StoredObject) -> bytes:
        time.sleep(rng.random() / 50)
        return by_number(chip)

    def work() -> dict[str, list[float]]:
        with stream_of({"27WXN": 9, "27WXP": 1, "27WXQ": 6}, read, fetchers=8) as stream:
            return {
                tile: [value(outcome) for outcome in stream.results(tile)]
                for tile in ("27WXN", "27WXP", "27WXQ")
            }

    values = within(TIMEOUT, work)

    assert values == {"27WXN": [*range(9)], "27WXP": [0], "27WXQ": [*range(6)]}


def test_an_embedded_chip_keeps_its_own_date_place_and_picture() -> None:
    with stream_of({"27WXN": 1}, lambda _: good_chip()) as stream:
        (outcome,) = stream.results("27WXN")

    assert isinstance(outcome, Embedded)
    assert outcome.chip == sources("27WXN", 1)[0]
    assert outcome.date.isoformat() == "2020-06-15"
    (footprint,), (thumbnail,) = outcome.footprints, outcome.thumbnails
    assert footprint[:5] == b"\x01\x03\0\0\0"  # a polygon
    assert len(thumbnail) == 16 * 16 * 3


def test_an_unusable_chip_is_skipped_with_its_reason_and_the_others_are_embedded() -> None:
    def read(chip: StoredObject) -> bytes:
        return BROKEN if number_of(chip) == 1 else by_number(chip)

    with stream_of({"27WXN": 3}, read) as stream:
        first, second, third = stream.results("27WXN")

    assert [value(first), value(third)] == [0, 2]
    assert isinstance(second, Skipped)
    assert (second.reason, second.chip.url) == ("format", sources("27WXN", 3)[1].url)
    assert "expected a TIFF" in second.detail


def test_an_oversized_object_is_skipped_without_being_fetched() -> None:
    huge = StoredObject("s3://chips/27WXN/claytile_27WXN_20200615_v02_0001.tif", 100 * 2**30, "etag")

    def read(_: StoredObject) -> bytes:
        raise AssertionError("it was fetched")

    with open_stream(read) as stream:
        stream.add("27WXN", [huge])
        (outcome,) = stream.results("27WXN")

    assert isinstance(outcome, Skipped)
    assert (outcome.reason, outcome.chip) == ("layout", huge)
    assert "107,374,182,400 bytes, expected at most 67,108,864" in outcome.detail


def test_chips_started_ahead_of_the_consumer_are_bounded() -> None:
    started, taken, most = 0, 0, 0
    lock = threading.Lock()

    def read(_: StoredObject) -> bytes:
        nonlocal started, most
        with lock:
            started += 1
            most = max(most, started - taken)
        return BROKEN

    def work() -> None:
        nonlocal taken
        with stream_of(dict.fromkeys(TILES[:3], 1000), read) as stream:
            for tile in TILES[:3]:
                for _ in stream.results(tile):
                    with lock:
                        taken += 1
                    if taken % 500 == 0:
                        time.sleep(0.05)  # would let fetchers run ahead

    within(TIMEOUT, work)

    untaken = 2 + 1 + 3 * 2 + BATCHES_AHEAD * 2  # fetchers, decoders, slots for batches, and outcomes ahead
    assert started == taken == 3000
    assert untaken / 2 < most <= untaken + 1  # this test counts a chip as taken after the stream does


def test_pixels_in_memory_are_bounded_even_while_tiles_fail(pixels_in_memory: Callable[[], int]) -> None:
    tiles = dict.fromkeys(TILES[:6], 12)
    seen: list[int] = []

    def read(chip: StoredObject) -> bytes:
        if number_of(chip) == 8:
            raise TransferFailed(f"{chip.url} broke")
        return good_chip()

    def work() -> None:
        with stream_of(tiles, read, MeanEmbedder(pause=0.05), batch_size=1, fetchers=4) as stream:
            for tile in tiles:
                with pytest.raises(TransferFailed):
                    seen.extend(pixels_in_memory() for _ in stream.results(tile))
                time.sleep(0.1)  # fetchers continue with the next tile
                seen.append(pixels_in_memory())

    within(TIMEOUT, work)

    slots = 4 + 1 + 3
    assert 3 <= max(seen) <= slots + 1, "a slot is free a moment before its chip is forgotten"


def test_no_pixels_are_kept_while_the_encoder_waits(pixels_in_memory: Callable[[], int]) -> None:
    last = threading.Event()

    def read(chip: StoredObject) -> bytes:
        if number_of(chip) == 4:
            last.wait(TIMEOUT)
        return good_chip()

    with stream_of({"27WXN": 5}, read, batch_size=2, fetchers=5) as stream:
        results = stream.results("27WXN")
        for _ in range(4):
            next(results)
        deadline = time.monotonic() + 5
        while pixels_in_memory() and time.monotonic() < deadline:
            time.sleep(0.01)
        kept = pixels_in_memory()
        last.set()
        assert [type(outcome) for outcome in results] == [Embedded]

    assert kept == 0


def test_a_failed_transfer_fails_only_its_tile() -> None:
    def read(chip: StoredObject) -> bytes:
        if "27WXP" in chip.url and number_of(chip) == 2:
            raise TransferFailed(f"{chip.url} broke")
        return by_number(chip)

    before: list[float] = []

    def work() -> tuple[list[float], list[float]]:
        with stream_of({"27WXN": 5, "27WXP": 30, "27WXQ": 5}, read) as stream:
            first = [value(outcome) for outcome in stream.results("27WXN")]
            with pytest.raises(TransferFailed, match=r"27WXP_20200615_v02_0002\.tif broke"):
                before.extend(value(outcome) for outcome in stream.results("27WXP"))
            return first, [value(outcome) for outcome in stream.results("27WXQ")]

    first, last = within(TIMEOUT, work)

    assert (first, before, last) == ([*range(5)], [0, 1], [*range(5)])


def test_outcomes_that_a_failed_chip_holds_back_are_unread() -> None:
    embedder = MeanEmbedder()

    def read(chip: StoredObject) -> bytes:
        if number_of(chip) == 0:
            while sum(embedder.batches) < 8:
                time.sleep(0.01)
            raise TransferFailed("broke")
        return by_number(chip)

    unread: list[Outcome] = []

    def work() -> None:
        with stream_of({"27WXN": 9}, read, embedder, batch_size=4, fetchers=9) as stream:
            next(stream.results("27WXN", unread))

    with pytest.raises(TransferFailed):
        within(TIMEOUT, work)

    assert len(unread) >= 4, "only the second batch may be unfinished"
    assert {value(outcome) for outcome in unread} <= {*range(1, 9)}


@pytest.mark.parametrize("failing", [0, 1, 9], ids=["the first chip", "a middle one", "the last one"])
def test_tiles_that_fail_lose_no_slot(failing: int) -> None:
    def read(chip: StoredObject) -> bytes:
        if number_of(chip) == failing and "27WXN" not in chip.url:
            raise TransferFailed("broke")
        return BROKEN

    tiles = dict.fromkeys(TILES[20:], 10) | {"27WXN": 40}

    def work() -> int:
        with stream_of(tiles, read, batch_size=1, fetchers=2) as stream:
            for tile in TILES[20:]:
                with pytest.raises(TransferFailed):
                    list(stream.results(tile))
            return len(list(stream.results("27WXN")))

    assert within(TIMEOUT, work) == 40


def test_stopping_early_abandons_the_rest_of_the_tile() -> None:
    read: list[StoredObject] = []

    def count(chip: StoredObject) -> bytes:
        read.append(chip)
        return BROKEN

    def work() -> int:
        with stream_of({"27WXN": 1000, "27WXP": 50}, count) as stream:
            results = stream.results("27WXN")
            next(results)
            results.close()
            return len(list(stream.results("27WXP")))

    assert within(TIMEOUT, work) == 50
    assert sum("27WXN" in chip.url for chip in read) <= 1 + 2 + 1 + 3 * 2 + BATCHES_AHEAD * 2


@pytest.mark.parametrize("requested", [True, False], ids=["requested, never begun", "never requested"])
def test_a_tile_whose_results_are_not_read_does_not_block_the_next(requested: bool) -> None:
    def work() -> list[float]:
        with stream_of({"27WXN": 40, "27WXP": 3}, by_number) as stream:
            if requested:
                stream.results("27WXN").close()
            return [value(outcome) for outcome in stream.results("27WXP")]

    assert within(TIMEOUT, work) == [0, 1, 2]


def test_closing_early_stops_every_thread_and_starts_no_further_chip() -> None:
    before = set(threading.enumerate())
    read: list[StoredObject] = []

    def slowly(chip: StoredObject) -> bytes:
        read.append(chip)
        time.sleep(0.02)
        return by_number(chip)

    def work() -> tuple[set[threading.Thread], int]:
        stream = stream_of({"27WXN": 50, "27WXP": 50}, slowly, MeanEmbedder(), MeanEmbedder(), fetchers=5)
        with suppress(KeyboardInterrupt), stream:
            next(stream.results("27WXN"))
            raise KeyboardInterrupt
        return set(threading.enumerate()) - before - {threading.current_thread()}, len(read)

    alive, reads = within(TIMEOUT, work)

    time.sleep(0.1)
    assert not alive
    assert len(read) == reads < 50


def test_a_stream_that_is_never_read_can_be_closed() -> None:
    def work() -> None:
        with stream_of({"27WXN": 100}, lambda _: BROKEN):
            time.sleep(0.05)

    within(TIMEOUT, work)


def test_tile_without_chips_has_no_outcomes() -> None:
    def work() -> list[Outcome]:
        with stream_of({"27WXN": 0, "27WXP": 1}, by_number) as stream:
            return list(stream.results("27WXN"))

    assert within(TIMEOUT, work) == []


def test_tiles_added_while_chips_are_in_progress_share_their_batches() -> None:
    embedder = MeanEmbedder()
    all_added = threading.Event()

    def read(chip: StoredObject) -> bytes:
        assert all_added.wait(TIMEOUT)
        return by_number(chip)

    def work() -> list[list[float]]:
        with open_stream(read, embedder, batch_size=4, fetchers=8) as stream:
            for tile in ("27WXN", "27WXP", "27WXQ"):
                stream.add(tile, sources(tile, 3))
                time.sleep(0.05)  # fetchers start before all tiles are added
            all_added.set()
            return [
                [value(outcome) for outcome in stream.results(tile)] for tile in ("27WXN", "27WXP", "27WXQ")
            ]

    assert within(TIMEOUT, work) == [[0, 1, 2]] * 3
    assert embedder.batches == [4, 4, 1]


def test_tile_added_after_all_others_were_taken_is_embedded() -> None:
    def work() -> list[list[float]]:
        taken = []
        with open_stream(by_number) as stream:
            for tile in ("27WXN", "27WXP"):
                stream.add(tile, sources(tile, 3))
                taken.append([value(outcome) for outcome in stream.results(tile)])
        return taken

    assert within(TIMEOUT, work) == [[0, 1, 2]] * 2


def test_tile_is_added_once_and_before_the_end() -> None:
    with open_stream(by_number) as stream:
        stream.add("27WXN", sources("27WXN", 1))
        with pytest.raises(ValueError, match="tile 27WXN was added twice"):
            stream.add("27WXN", sources("27WXN", 1))
        stream.finish()
        with pytest.raises(ValueError, match=r"tile 27WXP was added .*after finish"):
            stream.add("27WXP", sources("27WXP", 1))


def test_the_encoder_continues_while_the_consumer_is_busy() -> None:
    embedder = MeanEmbedder()

    def work() -> list[float]:
        with stream_of({"27WXN": 40}, by_number, embedder, batch_size=1) as stream:
            results = stream.results("27WXN")
            first = value(next(results))
            deadline = time.monotonic() + 10
            while sum(embedder.batches) < 20 and time.monotonic() < deadline:
                time.sleep(0.01)  # as while a tile is written
            encoded_meanwhile.append(sum(embedder.batches))
            return [first, *map(value, results)]

    encoded_meanwhile: list[int] = []
    assert within(TIMEOUT, work) == [*range(40)]
    assert 20 <= encoded_meanwhile[0] <= 1 + 2 + 1 + 3 + BATCHES_AHEAD


def test_large_outcomes_are_not_computed_far_ahead() -> None:
    class Wide(MeanEmbedder):
        @property
        def dimensions(self) -> Dimensions:
            return Dimensions(dim=2 * OUTCOMES_AHEAD_BYTES // 4, depth=1, heads=1, mlp_ratio=1)

    embedder = Wide()
    with stream_of({"27WXN": 100}, by_number, embedder, batch_size=1) as stream:
        next(stream.results("27WXN"))
        time.sleep(0.5)
        encoded = sum(embedder.batches)

    assert encoded <= 1 + 2 + 1 + 3


def test_only_remaining_tiles_can_be_taken() -> None:
    with stream_of({"27WXN": 1, "27WXP": 1}, by_number) as stream:
        assert len(list(stream.results("27WXP"))) == 1
        with pytest.raises(
            ValueError, match="got tile 27WXN, expected one of the remaining, in their order: none"
        ):
            stream.results("27WXN")


def test_a_batch_is_halved_until_it_fits_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    embedder = MeanEmbedder(most=2)

    def work() -> list[float]:
        with stream_of({"27WXN": 24}, by_number, embedder, batch_size=8, fetchers=8) as stream:
            return [value(outcome) for outcome in stream.results("27WXN")]

    assert within(TIMEOUT, work) == [*range(24)]
    assert max(embedder.batches) <= 2
    assert sum(embedder.batches) == 24
    assert "out of memory on cpu: continuing with batches of 2 windows" in caplog.messages


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_a_batch_waits_for_memory_that_batches_in_progress_hold(ahead: int) -> None:
    class Crowded(MeanEmbedder):
        """Has no memory for the third batch until others are done; fails as the CPU's allocator does."""

        def encode(self, pixels: Tensor, places: Tensor, dates: Tensor, level: Level) -> Tensor:
            if len(self.batches) == 2 and not refused:
                refused.append(len(pixels))
                raise RuntimeError(
                    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
                )
            return super().encode(pixels, places, dates, level)

    def work() -> list[float]:
        queue = ReadyQueue()
        chips = [ready_chip(number) for number in range(5)]
        for chip in chips:
            queue.announce()
            queue.arrive(chip)
        queue.all_announced()
        loop = DeviceLoop(Crowded(), queue, level="mean", batch_size=1, clock=StreamClock())
        loop.ahead = ahead
        loop.run()
        return [value(chip.outcome.result(0)) for chip in chips]

    refused: list[int] = []
    if ahead:
        assert within(TIMEOUT, work) == [*range(5)]
    else:  # no batch was in progress
        with pytest.raises(EncodingFailed, match="cpu has no memory for a single window"):
            within(TIMEOUT, work)
    assert refused == [1]


def test_too_little_memory_for_one_chip_is_a_systemic_error() -> None:
    def work() -> None:
        with stream_of({"27WXN": 3}, by_number, MeanEmbedder(most=0)) as stream:
            list(stream.results("27WXN"))

    with pytest.raises(
        EncodingFailed, match=r"cpu has no memory for a single window: .*no memory for 1 windows"
    ) as caught:
        within(TIMEOUT, work)

    assert caught.value.systemic


def test_an_error_of_the_network_reaches_the_consumer() -> None:
    lost = MeanEmbedder(error=RuntimeError("device-side assert triggered"))

    def work() -> None:
        with stream_of({"27WXN": 3}, by_number, lost) as stream:
            list(stream.results("27WXN"))

    with pytest.raises(EncodingFailed, match="could not encode a batch: RuntimeError: device-side assert"):
        within(TIMEOUT, work)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_device_thread_that_ends_unexpectedly_fails_all_waiting_chips(devices: int) -> None:
    class Panic(BaseException):
        """Like an error of a native library: not an `Exception`, so no step handles it."""

    class Panicking(MeanEmbedder):
        def encode(self, pixels: Tensor, places: Tensor, dates: Tensor, level: Level) -> Tensor:
            if sum(len(embedder.batches) for embedder in embedders) == 3:
                raise Panic("the native library crashed")
            return super().encode(pixels, places, dates, level)

    embedders = [Panicking() for _ in range(devices)]

    def work() -> tuple[list[float], list[str]]:
        first: list[float] = []
        errors = []
        with stream_of({"27WXN": 400, "27WXP": 30}, by_number, *embedders) as stream:
            for tile in ("27WXN", "27WXP"):
                with pytest.raises(EncodingFailed) as caught:
                    first.extend(value(outcome) for outcome in stream.results(tile))
                errors.append(str(caught.value))
                assert caught.value.systemic
        return first, errors

    first, errors = within(TIMEOUT, work)

    assert first == [*range(len(first))]
    assert errors == ["the thread of cpu ended: Panic: the native library crashed"] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_chip_with_a_nonfinite_vector_among_finite_ones_is_skipped(bad: float) -> None:
    class Damaged(MeanEmbedder):
        def encode(self, pixels: Tensor, places: Tensor, dates: Tensor, level: Level) -> Tensor:
            vectors = super().encode(pixels, places, dates, level)
            vectors[vectors[:, 0] == 2, 3] = bad
            return vectors

    def work() -> list[Outcome]:
        with stream_of({"27WXN": 5}, by_number, Damaged(), batch_size=4) as stream:
            return list(stream.results("27WXN"))

    outcomes = within(TIMEOUT, work)

    skip = outcomes.pop(2)
    assert isinstance(skip, Skipped)
    assert (skip.reason, number_of(skip.chip)) == ("vector", 2)
    assert "not finite for pixels that are" in skip.detail
    assert [value(outcome) for outcome in outcomes] == [0, 1, 3, 4]


class Overflowing(MeanEmbedder):
    """Returns NaN for chips whose pixels are below a number."""

    def __init__(self, below: int) -> None:
        super().__init__()
        self._below = below

    def encode(self, pixels: Tensor, places: Tensor, dates: Tensor, level: Level) -> Tensor:
        """As `MeanEmbedder`, or NaN."""
        vectors = super().encode(pixels, places, dates, level)
        vectors[vectors[:, 0] < self._below] = torch.nan
        return vectors


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_nonfinite_vectors_of_all_first_chips_fail_the_run(
    batch_size: int,
) -> None:
    def take(below: int) -> list[Outcome]:
        taken: list[Outcome] = []

        def work() -> None:
            with stream_of({"27WXN": 8}, by_number, Overflowing(below), batch_size=batch_size) as stream:
                taken.extend(stream.results("27WXN"))

        if below == 8:
            with pytest.raises(EncodingFailed, match=r"the first 5 chips of the run: .*damaged") as caught:
                within(TIMEOUT, work)
            assert caught.value.systemic
        else:
            within(TIMEOUT, work)
        return taken

    harmless, damaged = take(FIRST_CHIPS), take(8)

    skips = [outcome.reason for outcome in harmless if isinstance(outcome, Skipped)]
    assert skips == ["vector"] * FIRST_CHIPS
    assert [value(outcome) for outcome in harmless[FIRST_CHIPS:]] == [4, 5, 6, 7]
    assert len(damaged) <= FIRST_CHIPS


def test_two_devices_share_the_work_and_give_the_same_vectors(tiny_checkpoint: Path) -> None:
    class Counting(Embedder):
        def __init__(self) -> None:
            super().__init__(read_checkpoint(tiny_checkpoint).encoder, torch.device("cpu"), "fp32")
            self.chips = 0

        def encode(self, pixels: Tensor, places: Tensor, dates: Tensor, level: Level) -> Tensor:
            self.chips += len(pixels)
            return super().encode(pixels, places, dates, level)

    def vectors(embedders: Sequence[Embedder]) -> np.ndarray:
        with stream_of({"27WXN": 8}, by_number, *embedders, batch_size=1) as stream:
            outcomes = list(stream.results("27WXN"))
        return np.stack([outcome.vectors[0] for outcome in outcomes if isinstance(outcome, Embedded)])

    two = [Counting(), Counting()]
    shared = within(TIMEOUT, lambda: vectors(two))
    alone = within(TIMEOUT, lambda: vectors([Counting()]))

    assert sum(embedder.chips for embedder in two) == 8
    assert min(embedder.chips for embedder in two) >= 2
    assert np.unique(alone.round(4), axis=0).shape == (8, 256)
    np.testing.assert_allclose(shared, alone, rtol=1e-5, atol=1e-6)


def test_the_clock_separates_encoding_from_waiting() -> None:
    # The second chip is read only after the first outcome was taken, so the device waits for it.
    first_taken = threading.Event()

    def read(chip: StoredObject) -> bytes:
        if number_of(chip) == 1:
            assert first_taken.wait(TIMEOUT)
            time.sleep(0.3)
        return by_number(chip)

    started = time.perf_counter()
    with stream_of({"27WXN": 2}, read, MeanEmbedder(pause=0.2), batch_size=1) as stream:
        results = stream.results("27WXN")
        next(results)
        first_taken.set()
        assert len(list(results)) == 1
    wall = time.perf_counter() - started

    clock = stream.clock
    assert clock.batches == 2
    assert clock.encoding >= 0.4
    assert clock.waiting >= 0.25
    assert clock.encoding + clock.waiting <= wall


@pytest.fixture
def on_gpu(tiny_checkpoint: Path) -> Iterator[Embedder]:
    yield load_encoder(tiny_checkpoint, "cuda", "fp32")
    torch.cuda.set_per_process_memory_fraction(1.0)


def vectors_of(embedder: Embedder, read: Callable[[StoredObject], bytes], batch_size: int) -> np.ndarray:
    """(40, D) through the stream."""
    with stream_of({"27WXN": 40}, read, embedder, batch_size=batch_size) as stream:
        outcomes = list(stream.results("27WXN"))
    return np.stack([outcome.vectors[0] for outcome in outcomes if isinstance(outcome, Embedded)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("layout", ["bucket layout", "bands apart in one tile each"])
def test_a_gpu_gives_the_vectors_of_a_cpu(
    on_gpu: Embedder, tiny_checkpoint: Path, layout: str, batch_size: int
) -> None:
    def read(chip: StoredObject) -> bytes:
        return chip_bytes(chip_pixels() + number_of(chip), layout=layout)

    got = within(TIMEOUT, lambda: vectors_of(on_gpu, read, batch_size))

    reference = within(TIMEOUT, lambda: vectors_of(load_encoder(tiny_checkpoint, "cpu", "fp32"), read, 1))
    np.testing.assert_allclose(got, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_that_runs_out_of_memory_continues_with_smaller_batches(
    on_gpu: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    reference = within(TIMEOUT, lambda: vectors_of(on_gpu, by_number, 1))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 600e6) / total)

    got = within(TIMEOUT, lambda: vectors_of(on_gpu, by_number, 32))

    np.testing.assert_allclose(got, reference, rtol=1e-3, atol=1e-4)
    assert any("out of memory on cuda" in message for message in caplog.messages)


@pytest.mark.parametrize("seed", range(8))
def test_no_tile_hangs_and_no_outcome_is_lost_under_stress(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tiles = {tile: int(rng.integers(0, 25)) for tile in TILES[:30]}
    fate = {
        (tile, number): rng.choice(["good", "bad", "fails"], p=[0.1, 0.86, 0.04])
        for tile, count in tiles.items()
        for number in range(count)
    }
    pauses = rng.random(25) / 500
    stops = {tile: int(rng.integers(1, 30)) for tile in tiles if rng.random() < 0.2}

    def read(chip: StoredObject) -> bytes:
        tile = chip.url.split("/")[3]
        time.sleep(pauses[number_of(chip)])
        if fate[tile, number_of(chip)] == "fails":
            raise TransferFailed("broke")
        return chip_of_value(number_of(chip)) if fate[tile, number_of(chip)] == "good" else BROKEN

    def take(stream: ChipStream, tile: str) -> list[str]:
        taken: list[str] = []
        results = stream.results(tile)
        try:
            for outcome in results:
                good = isinstance(outcome, Embedded) and value(outcome) == len(taken)
                taken.append("good" if good else "bad" if isinstance(outcome, Skipped) else "wrong")
                if len(taken) == stops.get(tile):
                    break
        except TransferFailed:
            taken.append("fails")
        finally:
            results.close()
        return taken

    def work() -> dict[str, list[str]]:
        embedders = [MeanEmbedder(most=int(most)) for most in rng.integers(1, 6, size=rng.integers(1, 4))]
        batch_size, fetchers = (int(number) for number in rng.integers(1, 9, size=2))
        with stream_of(tiles, read, *embedders, batch_size=batch_size, fetchers=fetchers) as stream:
            return {tile: take(stream, tile) for tile in tiles}

    taken = within(TIMEOUT, work)

    for tile, count in tiles.items():
        expected = [fate[tile, number] for number in range(count)]
        if "fails" in expected:
            expected = expected[: expected.index("fails") + 1]
        assert taken[tile] == expected[: stops.get(tile)]
