"""Runs of the pipeline over folders, without a network; gates hold a step to show the order."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from clay_assets.embedding.progress import Progress
from clay_assets.embedding.stream import EncodingFailed
from clay_assets.pipeline import RunStopped, Step, TileJob, TileOutcome, process_tiles
from clay_assets.pipeline.planner import TILES_AHEAD
from clay_assets.pipeline.run import PUBLISHERS
from clay_assets.publishing.publish import ResultsMissing
from clay_assets.results import Fingerprint, results_key
from clay_assets.results.outcomes import NoUsableChips
from clay_assets.state.states import TileStores
from clay_assets.storage import BucketMissing, Store, StoreDenied, StoredObject, TransferFailed
from clay_assets.tiles.inventory import InventoryMissing, NoTiles
from clay_assets_tests.embedding.scene import TIMEOUT, MeanEncoder, Scene, errors, process
from clay_assets_tests.embedding.streaming import BROKEN, TILES, MeanEmbedder, number_of
from clay_assets_tests.s3_server import S3Bucket
from clay_model import Embedder

MORE_TILES = [f"{zone}{tile[3:]}" for zone in ("29W", "30W") for tile in TILES]
"""Twice as many tiles, so that they exceed the number that a run lists ahead."""


class HeldStore(Store):
    """A store with hooks before an object is stored and before objects are listed."""

    def __init__(self, uri: Path) -> None:
        super().__init__(uri)
        self.before_put: Callable[[str], None] = lambda _: None
        self.before_list: Callable[[str], None] = lambda _: None

    def put(self, target: str, path: object) -> None:
        """As `Store`."""
        self.before_put(target)
        super().put(target, path)  # type: ignore[arg-type]

    def list(self, prefix: str = "") -> list[StoredObject]:
        """As `Store`."""
        self.before_list(prefix)
        return super().list(prefix)


class Gate:
    """Holds threads until it is opened, and counts them."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.held = 0
        self._open = threading.Event()
        self._lock = threading.Lock()

    def open(self) -> None:
        """Release all threads."""
        self._open.set()

    def wait(self) -> None:
        """Wait until the gate is open.

        Raises:
            AssertionError: If it stays closed.
        """
        with self._lock:
            self.held += 1
        self.arrived.set()
        assert self._open.wait(TIMEOUT), "the gate stayed closed"


def process_until_interrupted(
    tiles: Sequence[str], job: TileJob, recorded: list[str], interrupt: Callable[[], None]
) -> None:
    """Process tiles while a thread runs `interrupt`, which must interrupt the calling thread."""
    interrupter = threading.Thread(target=interrupt, daemon=True)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        process_tiles(tiles, job, lambda outcome: recorded.append(outcome.tile), Progress())
    interrupter.join(TIMEOUT)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until another thread makes a condition true.

    Raises:
        AssertionError: If the condition stays false.
    """
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"not within {TIMEOUT} s: {what}"
        time.sleep(0.005)


def held_output(scene: Scene) -> tuple[TileStores, HeldStore]:
    output = HeldStore(scene.root / "output")
    return TileStores(scene.chips, scene.work, output), output


class Failing:
    """Fails reads of one chip."""

    def __init__(self, error: BaseException, *, tile: str, number: int) -> None:
        self._error, self._tile, self._number = error, tile, number

    def __call__(self, chip: StoredObject) -> None:
        """Raise the error for the chip."""
        if f"/{self._tile}/" in chip.url and number_of(chip) == self._number:
            raise self._error


def test_a_run_takes_a_tile_through_all_steps_and_leaves_it_current(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: BROKEN, 3: 30})
    encoder = scene.encoder()

    (first,) = process(scene, ["27WXN"], encoder=encoder).values()
    reads = scene.chips.take_reads()
    (again,) = process(scene, ["27WXN"], encoder=encoder).values()

    assert first.inventory is not None
    assert [number_of(chip) for chip in first.inventory.chips] == [1, 2, 3]
    assert first.results is not None
    assert (first.results.summary.embedded, first.results.summary.chips, first.reused) == (2, 3, False)
    assert first.published is not None
    assert (first.published.rows, first.published.written) == (2, True)
    assert scene.output.exists("27WXN_20200615_20200615_v001.gpq")
    assert reads == [1, 2, 3]
    assert (again.reused, again.results) == (True, first.results)
    assert again.published is not None
    assert not again.published.written
    assert scene.chips.take_reads() == []
    assert encoder.loads == 1


def test_no_network_is_loaded_if_no_chip_is_to_embed(scene: Scene) -> None:
    scene.put("27WXN", {1: 10})
    scene.put("27WXP", {1: 10, 2: 20})
    process(scene, ["27WXN", "27WXP"])
    scene.chips.delete("27WXP/2020-06-15/claytile_27WXP_20200615_v02_0002.tif")  # only rows to drop
    encoder = scene.encoder()

    outcomes = process(scene, ["27WXN", "27WXP", "27WXQ"], encoder=encoder)

    assert encoder.loads == 0
    assert [(outcome.reused, outcome.empty, outcome.error) for outcome in outcomes.values()] == [
        (True, False, None),
        (False, False, None),
        (False, True, None),
    ]
    assert scene.values("27WXP") == {1: 10.0}


def test_each_tile_of_a_run_gets_its_own_vectors(scene: Scene) -> None:
    tiles = TILES[:12]
    for index, tile in enumerate(tiles):
        chips: dict[int, int | bytes] = {number: 10 * number + index for number in range(1, 1 + index % 4)}
        scene.put(tile, chips | {5: BROKEN, 6: 100 + index})
    encoder = scene.encoder(batch_size="3")

    outcomes = process(scene, tiles, encoder=encoder)

    assert set(errors(outcomes).values()) == {""}
    for index, tile in enumerate(tiles):
        own = {number: 10.0 * number + index for number in range(1, 1 + index % 4)}
        assert scene.values(tile) == own | {5: "format", 6: 100.0 + index}
    assert encoder.loads == 1


def test_a_tile_is_recorded_while_the_next_one_is_embedded(scene: Scene) -> None:
    scene.put("27WXN", {1: 10})
    scene.put("27WXP", dict.fromkeys(range(1, 11), 10))
    recorded = threading.Event()

    def hold(chip: StoredObject) -> None:
        if "27WXP" in chip.url and number_of(chip) > 1:
            until(lambda: bool(scene.output_files()), "the first tile published")
            time.sleep(0.05 * number_of(chip))  # chips finish one after another from here
            if number_of(chip) == 10:
                assert recorded.wait(TIMEOUT / 2), "the first tile was not recorded meanwhile"

    def record(outcome: TileOutcome) -> None:
        if outcome.tile == "27WXN":
            recorded.set()

    scene.chips.before = hold
    outcomes = process(scene, ["27WXN", "27WXP"], record, encoder=scene.encoder(batch_size="1"))

    assert errors(outcomes) == {"27WXN": "", "27WXP": ""}


def test_encoding_continues_while_tiles_are_published_at_most_two_at_a_time(
    scene: Scene,
) -> None:
    tiles = TILES[:5]
    for tile in tiles:
        scene.put(tile, {1: 10, 2: 20})
    stores, output = held_output(scene)
    gate = Gate()
    output.before_put = lambda _: gate.wait()
    encoder = scene.encoder()
    encoded_meanwhile: list[int] = []

    def open_once_all_is_encoded() -> None:
        until(lambda: sum(encoder.embedder.batches) == 10, "every chip encoded")
        until(lambda: gate.held == PUBLISHERS, "two tiles publishing")
        time.sleep(0.2)  # a third would start meanwhile
        encoded_meanwhile.append(gate.held)
        gate.open()

    opener = threading.Thread(target=open_once_all_is_encoded, daemon=True)
    opener.start()
    outcomes = process(scene, tiles, stores=stores, encoder=encoder)
    opener.join(TIMEOUT)

    assert encoded_meanwhile == [PUBLISHERS]
    assert errors(outcomes) == dict.fromkeys(tiles, "")
    assert len(scene.output_files()) == 5


def test_failed_tiles_stop_no_other_tile_and_their_outcomes_hold_the_errors(scene: Scene) -> None:
    tiles = TILES[:6]
    for tile in tiles:
        scene.put(tile, {1: 10, 2: 20, 3: 30})
    fails_transfer, unusable, fails_publishing, replaced, empty = tiles[1:]
    scene.chips.before = Failing(TransferFailed("the connection broke"), tile=fails_transfer, number=3)
    scene.put(unusable, dict.fromkeys((1, 2, 3), BROKEN))
    stores, output = held_output(scene)

    def fail(key: str) -> None:
        if key.startswith(fails_publishing):
            raise OSError(5, "Input/output error")

    output.before_put = fail
    for number in (1, 2, 3):
        scene.chips.delete(f"{empty}/2020-06-15/claytile_{empty}_20200615_v02_{number:04}.tif")
    fingerprint = scene.encoder().target().preferred
    scene.work.write(results_key(replaced, fingerprint), b"no Parquet")  # replaced

    outcomes = process(scene, tiles, stores=stores)

    assert errors(outcomes) == {
        tiles[0]: "",
        fails_transfer: "TransferFailed",
        unusable: "NoUsableChips",
        fails_publishing: "OSError",
        replaced: "",
        empty: "",
    }
    assert isinstance(outcomes[unusable].error, NoUsableChips)
    assert {tile for tile, outcome in outcomes.items() if outcome.published} == {tiles[0], replaced}
    # Outcomes also hold the steps completed before the error.
    assert outcomes[fails_publishing].results is not None
    assert outcomes[fails_transfer].inventory is not None
    assert outcomes[empty].empty
    assert scene.values(fails_transfer) == {1: 10.0, 2: 20.0}


def test_an_interrupt_records_published_tiles_and_keeps_finished_chips(scene: Scene) -> None:
    for tile in ("27WXN", "27WXP", "27WXQ"):
        scene.put(tile, {1: 10, 2: 20, 3: 30})
    stores, output = held_output(scene)
    gate = Gate()
    output.before_put = lambda _: gate.wait()

    def interrupt(chip: StoredObject) -> None:
        if "27WXP" in chip.url and number_of(chip) == 3:
            assert gate.arrived.wait(TIMEOUT)  # the first tile is being published
            threading.Timer(0.3, gate.open).start()
            raise KeyboardInterrupt

    scene.chips.before = interrupt
    recorded: list[TileOutcome] = []
    with pytest.raises(KeyboardInterrupt):
        process(scene, ["27WXN", "27WXP", "27WXQ"], recorded.append, stores=stores)

    assert [outcome.tile for outcome in recorded] == ["27WXN"]
    assert recorded[0].published is not None
    assert scene.values("27WXP") == {1: 10.0, 2: 20.0}
    assert len(scene.output_files()) == 1


def test_an_interrupt_while_tiles_are_published_records_those_already_submitted(scene: Scene) -> None:
    """Dagster interrupts the calling thread, which waits for the oldest of two tiles."""
    tiles = TILES[:3]
    for tile in tiles:
        scene.put(tile, {1: 10})
    stores, output = held_output(scene)
    gate = Gate()
    output.before_put = lambda _: gate.wait()
    encoder = scene.encoder()
    job = TileJob(stores, encoder, check=False)
    recorded: list[str] = []
    main = threading.main_thread()
    assert threading.current_thread() is main

    def interrupt() -> None:
        until(lambda: sum(encoder.embedder.batches) == 3 and gate.held == PUBLISHERS, "two publishing")
        time.sleep(0.3)
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
        gate.open()

    process_until_interrupted(tiles, job, recorded, interrupt)

    assert recorded == tiles[:2]
    assert len(scene.output_files()) == 2


def test_an_interrupt_records_published_tiles_while_the_listing_of_another_stalls(scene: Scene) -> None:
    tiles = MORE_TILES[:TILES_AHEAD]
    for tile in tiles:
        scene.put(tile, {1: 10})
    gate = Gate()
    chips = HeldStore(scene.root / "chips")
    chips.before_list = lambda prefix: gate.wait() if tiles[-1] in prefix else None
    job = TileJob(TileStores(chips, scene.work, scene.output), scene.encoder(), check=False)
    recorded: list[str] = []
    waits: list[float] = []

    def interrupt() -> None:
        until(lambda: gate.held == 1 and len(recorded) > 25, "the calling thread waiting for the last tile")
        time.sleep(0.3)
        until(lambda: len(recorded) < len(scene.output_files()), "a published tile to be recorded")
        os.kill(os.getpid(), signal.SIGINT)  # the calling thread must wake up
        interrupted = time.monotonic()
        until(lambda: len(recorded) == len(scene.output_files()), "all published tiles recorded")
        waits.append(time.monotonic() - interrupted)
        gate.open()

    process_until_interrupted(tiles, job, recorded, interrupt)

    assert waits[0] < TIMEOUT / 2, "the records waited for the listing"


def test_a_systemic_error_stops_the_run_after_the_tiles_before_it(scene: Scene) -> None:
    tiles = TILES[:5]
    for tile in tiles:
        scene.put(tile, {1: 10, 2: 20})
    scene.chips.before = Failing(StoreDenied("the credentials expired"), tile=tiles[2], number=1)
    recorded: list[TileOutcome] = []

    with pytest.raises(RunStopped, match="StoreDenied: the credentials expired") as stopped:
        process(scene, tiles, recorded.append)

    assert stopped.value.outcome.tile == tiles[2]
    assert sorted(outcome.tile for outcome in recorded) == tiles[:3]
    assert {outcome.tile for outcome in recorded if outcome.published} == set(tiles[:2])


def test_a_failing_device_stops_the_run(scene: Scene) -> None:
    for tile in TILES[:3]:
        scene.put(tile, {1: 10})
    encoder = scene.encoder(embedder=MeanEmbedder(error=RuntimeError("device-side assert triggered")))
    recorded: list[TileOutcome] = []

    with pytest.raises(RunStopped) as stopped:
        process(scene, TILES[:3], recorded.append, encoder=encoder)

    assert isinstance(stopped.value.outcome.error, EncodingFailed)
    assert [outcome.tile for outcome in recorded] == TILES[:1]


def test_a_network_that_fails_to_load_stops_the_run_after_the_tiles_that_need_no_network(
    scene: Scene,
) -> None:
    for tile in TILES[:8]:
        scene.put(tile, {1: 10})
    process(scene, TILES[:3])

    class Damaged(MeanEncoder):
        def embedders(self, wanted: Fingerprint) -> Sequence[Embedder]:
            super().embedders(wanted)
            raise RuntimeError("CUDA driver version is insufficient")

    good = scene.encoder()
    encoder = Damaged(good.checkpoint, precision="fp32", device="cpu", batch_size="2", cache=good.cache)
    recorded: list[TileOutcome] = []

    with pytest.raises(RunStopped, match="CUDA driver version is insufficient"):
        process(scene, TILES[:8], recorded.append, encoder=encoder)

    assert encoder.loads == 1
    assert {outcome.tile: outcome.error is None for outcome in recorded} == {
        **dict.fromkeys(TILES[:3], True),
        TILES[3]: False,
    }


def test_an_unreachable_store_stops_the_run_and_a_single_broken_transfer_does_not(scene: Scene) -> None:
    tiles = TILES[:4]
    for tile in tiles:
        scene.put(tile, {1: 10})
    lost = threading.Event()

    class Lost(HeldStore):
        def read(self, target: StoredObject | str) -> bytes:
            assert isinstance(target, StoredObject)
            if f"/{tiles[1]}/" in target.url:
                lost.set()
                raise TransferFailed("no server answered")
            return super().read(target)

    def refuse(_: str) -> None:
        if lost.is_set():
            raise TransferFailed("no server answered")

    chips = Lost(scene.root / "chips")
    chips.before_list = refuse
    recorded: list[TileOutcome] = []
    with pytest.raises(RunStopped, match="TransferFailed: no server answered"):
        process(scene, tiles, recorded.append, stores=TileStores(chips, scene.work, scene.output))

    assert sorted(errors({outcome.tile: outcome for outcome in recorded}).items()) == [
        (tiles[0], ""),
        (tiles[1], "TransferFailed"),
    ]


def test_an_unreachable_store_of_published_files_stops_the_run(scene: Scene) -> None:
    tiles = TILES[:6]
    for tile in tiles:
        scene.put(tile, {1: 10})
    stores, output = held_output(scene)

    def refuse(prefix: str) -> None:
        if prefix:  # the run lists the whole store once, at its start
            raise TransferFailed("no server answered")

    output.before_list = refuse
    recorded: list[TileOutcome] = []
    with pytest.raises(RunStopped, match="TransferFailed: no server answered"):
        process(scene, tiles, recorded.append, stores=stores)

    assert len(recorded) < 6
    assert all(outcome.error for outcome in recorded)


def test_an_error_in_the_callback_stops_the_run_and_names_its_tile(scene: Scene) -> None:
    tiles = TILES[:4]
    for tile in tiles:
        scene.put(tile, {1: 10, 2: 20})
    recorded: list[TileOutcome] = []

    def record(outcome: TileOutcome) -> None:
        recorded.append(outcome)
        if outcome.tile == tiles[0]:
            raise OSError("the database is locked")

    with pytest.raises(RunStopped, match="the database is locked") as stopped:
        process(scene, tiles, record)

    assert stopped.value.outcome.tile == tiles[0]
    assert [outcome.error for outcome in recorded] == [None] * len(recorded)


def test_an_empty_tile_succeeds_and_an_empty_store_stops_the_run(scene: Scene) -> None:
    scene.chips.write("readme.txt", b"no tile")

    with pytest.raises(RunStopped) as stopped:
        process(scene, ["27WXN"])
    scene.put("27WXP", {1: 10})
    outcomes = process(scene, ["27WXN", "27WXP"])

    assert isinstance(stopped.value.outcome.error, NoTiles)
    assert "no tile has a folder under" in str(stopped.value)
    assert "CLAY_CHIPS_URI" in str(stopped.value)
    assert {tile: (outcome.empty, outcome.error) for tile, outcome in outcomes.items()} == {
        "27WXN": (True, None),
        "27WXP": (False, None),
    }
    assert outcomes["27WXN"].results is None
    assert outcomes["27WXN"].published is None


@pytest.mark.parametrize(
    "subsets",
    [
        [("inventory",), ("embed",), ("publish",)],
        [("inventory", "embed"), ("publish",)],
        [("inventory",), ("embed", "publish")],
    ],
    ids=["one at a time", "the first two", "the last two"],
)
def test_steps_can_run_separately(scene: Scene, subsets: list[tuple[Step, ...]]) -> None:
    scene.put("27WXN", {1: 10, 2: 20})
    scene.work.delete("chip_inventory/27WXN.parquet")

    for steps in subsets:
        encoder = scene.encoder()
        (outcome,) = process(scene, ["27WXN"], encoder=encoder, steps=steps).values()
        assert outcome.error is None
        made = {"inventory": outcome.inventory, "embed": outcome.results, "publish": outcome.published}
        assert {step for step, thing in made.items() if thing is not None} == set(steps)
        assert encoder.loads == ("embed" in steps)

    assert scene.values() == {1: 10.0, 2: 20.0}
    assert len(scene.output_files()) == 1


@pytest.mark.parametrize(
    ("step", "error"), [("embed", InventoryMissing), ("publish", ResultsMissing)], ids=["embed", "publish"]
)
def test_a_step_without_its_input_fails_only_its_tile(
    scene: Scene, step: Step, error: type[Exception]
) -> None:
    scene.put("27WXP", {1: 10})
    process(scene, ["27WXP"])
    if step == "publish":
        scene.put("27WXN", {1: 10})

    outcomes = process(scene, ["27WXN", "27WXP"], steps=[step])

    assert isinstance(outcomes["27WXN"].error, error)
    assert outcomes["27WXP"].error is None


def test_force_embeds_current_tiles_again(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: 20})
    process(scene, ["27WXN"])
    scene.chips.take_reads()

    (outcome,) = process(scene, ["27WXN"], force=True).values()

    assert scene.chips.take_reads() == [1, 2]
    assert not outcome.reused


@pytest.mark.parametrize("has_chips", [True, False], ids=["tiles with chips", "empty tiles"])
def test_tiles_are_listed_only_a_few_ahead(scene: Scene, has_chips: bool) -> None:
    tiles = [*TILES, *MORE_TILES]
    scene.put(tiles[-1], {1: BROKEN})
    if has_chips:
        for tile in tiles:
            scene.put(tile, {1: BROKEN})
    listed: list[str] = []
    most = 0
    done: list[str] = []
    chips = HeldStore(scene.root / "chips")

    def count(prefix: str) -> None:
        nonlocal most
        listed.append(prefix)
        most = max(most, len(listed) - len(done))

    chips.before_list = count
    process(
        scene,
        tiles,
        lambda outcome: done.append(outcome.tile),
        stores=TileStores(chips, scene.work, scene.output),
        steps=("inventory", "embed"),
    )

    assert len(listed) == len(done) == len(tiles)
    assert TILES_AHEAD / 2 <= most <= TILES_AHEAD + PUBLISHERS + 2  # tiles are recorded a little later


def test_a_systemic_error_of_the_next_tile_stops_the_run_before_further_tiles_are_listed(
    scene: Scene,
) -> None:
    listed: list[str] = []
    chips = HeldStore(scene.root / "chips")

    def refuse(prefix: str) -> None:
        listed.append(prefix)
        raise StoreDenied("the credentials expired")

    chips.before_list = refuse
    with pytest.raises(RunStopped, match="the credentials expired"):
        process(scene, [*TILES, *MORE_TILES], stores=TileStores(chips, scene.work, scene.output))

    assert len(listed) <= TILES_AHEAD / 2 + 2


def test_a_missing_bucket_stops_the_run_at_the_first_tile(scene: Scene, bucket: S3Bucket) -> None:
    chips = Store("s3://no-such-bucket-of-ours/chips", bucket.options)
    recorded: list[TileOutcome] = []

    with pytest.raises(RunStopped) as stopped:
        process(scene, TILES[:9], recorded.append, stores=TileStores(chips, scene.work, scene.output))

    assert isinstance(stopped.value.outcome.error, BucketMissing)
    assert [outcome.tile for outcome in recorded] == TILES[:1]
