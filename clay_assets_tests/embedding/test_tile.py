import threading
import time
from typing import Any
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest
from pyproj import Transformer

from clay_assets.embedding.plan import TilePlan, plan_tile
from clay_assets.embedding.progress import Progress
from clay_assets.embedding.run import EmbeddingRun
from clay_assets.embedding.tile import ResultsChanged
from clay_assets.publishing.publish import ResultsMissing, publish_tile
from clay_assets.results import ResultsHeader, TileSummary, counts, results_key
from clay_assets.results.outcomes import NoUsableChips
from clay_assets.results.picture import tile_picture
from clay_assets.storage import BucketMissing, Store, StoredObject, TransferFailed
from clay_assets_tests.embedding.scene import TIMEOUT, Scene, embed_planned
from clay_assets_tests.embedding.streaming import BROKEN, MeanEmbedder, chip_of_value, number_of, within
from clay_assets_tests.geotiffs import chip_name
from clay_assets_tests.s3_server import S3Bucket
from clay_assets_tests.tile_scene import damage_pages
from clay_model.spec import V15


def key_of(scene: Scene) -> str:
    """Key of the tile's results in the work store."""
    return results_key("27WXN", scene.encoder().target().preferred)


def todo(plan: TilePlan) -> list[int]:
    return [number_of(chip) for chip in plan.todo]


def test_every_chip_of_a_new_tile_is_embedded_or_skipped_with_its_reason(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: BROKEN, 3: 30})

    header = scene.embed()

    assert scene.values() == {1: 10.0, 2: "format", 3: 30.0}
    summary = header.summary
    assert (summary.chips, summary.embedded, summary.encoded) == (3, 2, 2)
    assert [skip["reason"] for skip in summary.skipped] == ["format"]
    assert summary.bytes_read == len(chip_of_value(10)) + len(BROKEN) + len(chip_of_value(30))
    assert summary.chips_per_second == pytest.approx(2 / summary.seconds)
    assert summary.picture.startswith("![")
    to_degrees = Transformer.from_crs("EPSG:32627", "OGC:CRS84", always_xy=True)
    edges = to_degrees.transform([600_000, 605_120] * 2, [7_694_920] * 2 + [7_700_040] * 2)
    assert summary.bounds == pytest.approx([min(edges[0]), min(edges[1]), max(edges[0]), max(edges[1])])
    assert header.provenance.model == "clay-v0-custom-4x1"
    assert (summary.windows, summary.nodata) == (2, 0.0)
    assert (header.provenance.shape, header.provenance.device, header.remaining) == ((4,), "cpu", 0)


def test_bytes_of_an_oversized_file_are_not_counted_as_read(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: BROKEN})
    with (scene.root / "chips" / "27WXN" / "2020-06-15" / chip_name(2)).open("r+b") as file:
        file.truncate((64 << 20) + 1)  # sparse: it takes no disk space
    scene.take_inventory("27WXN")

    summary = scene.embed().summary

    assert scene.values() == {1: 10.0, 2: "layout"}
    assert scene.chips.take_reads() == [1]
    assert summary.bytes_read == len(chip_of_value(10))


def test_a_current_tile_is_not_rewritten_and_loads_no_network(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: BROKEN})
    first = scene.embed()
    stored = scene.work.stat(key_of(scene))
    scene.chips.take_reads()

    encoder = scene.encoder()
    again = scene.embed(encoder=encoder)

    assert scene.plan().is_current
    assert again == first
    assert encoder.loads == 0
    assert scene.chips.take_reads() == []
    assert scene.work.stat(key_of(scene)) == stored


def test_only_new_and_changed_chips_are_embedded_and_removed_ones_dropped(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: 20, 3: BROKEN, 4: 40, 5: 50})
    scene.embed()
    scene.chips.take_reads()

    for number in (1, 5):
        scene.chips.delete(f"27WXN/2020-06-15/{chip_name(number)}")
    scene.put("27WXN", {2: 22, 6: 60})
    plan = scene.plan()
    header = scene.embed()

    assert todo(plan) == [2, 6]
    assert not plan.is_current
    assert scene.chips.take_reads() == [2, 6]
    assert scene.values() == {2: 22.0, 3: "format", 4: 40.0, 6: 60.0}
    assert (header.summary.embedded, header.summary.encoded, len(header.summary.skipped)) == (3, 2, 1)
    assert scene.plan().is_current


def test_a_removed_chip_is_dropped_without_loading_the_network(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: 20})
    scene.embed()
    scene.chips.take_reads()
    scene.chips.delete(f"27WXN/2020-06-15/{chip_name(2)}")
    scene.take_inventory("27WXN")

    encoder = scene.encoder()
    header = scene.embed(encoder=encoder)

    assert scene.values() == {1: 10.0}
    assert (encoder.loads, scene.chips.take_reads(), header.summary.encoded) == (0, [], 0)


@pytest.mark.parametrize("other", ["level", "precision", "checkpoint", "model"])
def test_results_of_other_settings_are_separate_and_going_back_embeds_nothing(
    scene: Scene, other: str
) -> None:
    scene.put("27WXN", {1: 10, 2: BROKEN})
    first = scene.embed()
    (scene.root / "other").write_bytes(b"other weights")
    another = {
        "level": scene.encoder(level="patch"),
        "precision": scene.encoder(precision="bf16"),
        "checkpoint": scene.encoder(checkpoint="other"),
        "model": scene.encoder(embedder=MeanEmbedder(spec=V15)),
    }[other]

    assert todo(scene.plan(encoder=another)) == [1, 2]
    second = scene.embed(encoder=another)
    scene.chips.take_reads()
    back = scene.embed()

    assert back == first
    assert scene.chips.take_reads() == []
    assert scene.values() == {1: 10.0, 2: "format"}
    assert scene.values(encoder=another) == {1: 10.0, 2: "format"}
    assert second.provenance.fingerprint != first.provenance.fingerprint
    assert len(scene.work.list("chip_embeddings/")) == 2


def test_force_embeds_every_chip_again(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: 20})
    scene.embed()
    scene.chips.take_reads()

    header = scene.embed(force=True)

    assert scene.chips.take_reads() == [1, 2]
    assert header.summary.encoded == 2


@pytest.mark.parametrize("level", ["mean", "patch", "group"])
def test_results_of_every_level_are_continued(scene: Scene, level: str) -> None:
    scene.put("27WXN", {1: 10, 2: BROKEN})
    scene.embed(encoder=scene.encoder(level=level))
    scene.put("27WXN", {3: 30, 4: 40, 5: 250})

    header = scene.embed(encoder=scene.encoder(level=level))

    assert scene.values(encoder=scene.encoder(level=level)) == {
        1: 10.0,
        2: "format",
        3: 30.0,
        4: 40.0,
        5: 250.0,
    }
    assert header.provenance.shape == {"mean": (4,), "patch": (16, 16, 4), "group": (6, 16, 16, 4)}[level]
    assert header.summary.picture.startswith("![")


@pytest.mark.parametrize("error", [TransferFailed, KeyboardInterrupt])
def test_finished_chips_of_a_failed_run_are_not_embedded_again(
    scene: Scene, error: type[BaseException]
) -> None:
    scene.put("27WXN", {number: 10 * number for number in range(1, 9)} | {2: BROKEN})

    scene.break_at(8, error)
    with pytest.raises(error):
        scene.embed()
    partial = scene.values()
    plan = scene.plan()
    scene.chips.before = lambda _: None
    scene.chips.take_reads()
    header = scene.embed()

    assert partial == {1: 10.0, 2: "format", 3: 30.0, 4: 40.0, 5: 50.0, 6: 60.0, 7: 70.0}
    assert plan.header is not None
    assert plan.header.remaining == 1
    assert not plan.is_current
    assert scene.chips.take_reads() == [8]
    assert scene.values() == {number: 10.0 * number for number in range(1, 9)} | {2: "format"}
    assert (header.summary.embedded, header.summary.encoded, header.remaining) == (7, 1, 0)


def test_an_interrupt_loses_no_chip_that_finished_behind_the_current_one(scene: Scene) -> None:
    scene.put("27WXN", {number: 10 * number for number in range(1, 9)})
    encoder = scene.encoder()

    def interrupt() -> None:
        deadline = time.monotonic() + TIMEOUT
        while sum(encoder.embedder.batches) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        raise KeyboardInterrupt

    plan = scene.plan()
    with scene.run(plan, encoder=encoder) as run, pytest.raises(KeyboardInterrupt):
        embed_planned(plan, run, scene.work, interrupt)

    assert len(scene.values()) >= 6, "only the last batch of 2 may be unfinished"


def test_an_interrupt_while_the_picture_is_made_loses_no_chip(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.put("27WXN", {1: 10, 2: 20, 3: 30})
    once = Mock(wraps=tile_picture, side_effect=[KeyboardInterrupt, DEFAULT])
    monkeypatch.setattr(counts, "tile_picture", once)
    with pytest.raises(KeyboardInterrupt):
        scene.embed()

    assert scene.values() == {1: 10.0, 2: 20.0, 3: 30.0}
    assert scene.plan().is_current


def test_a_finished_tile_is_kept_if_the_run_is_interrupted_while_it_is_stored(scene: Scene) -> None:
    class InterruptedStore(Store):
        puts = 0

        def put(self, target: str, path: Any) -> None:  # noqa: ANN401
            self.puts += 1
            if self.puts == 1:
                raise KeyboardInterrupt
            super().put(target, path)

    scene.put("27WXN", {1: 10, 2: BROKEN, 3: 30})
    scene.work = InterruptedStore(scene.root / "work")

    with pytest.raises(KeyboardInterrupt):
        scene.embed()

    assert scene.plan().is_current
    assert scene.values() == {1: 10.0, 2: "format", 3: 30.0}


@pytest.mark.parametrize("error", [TransferFailed, KeyboardInterrupt])
def test_complete_results_stay_when_a_forced_run_fails(
    scene: Scene, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    scene.put("27WXN", {number: 10 * number for number in range(1, 6)})
    complete = scene.embed()

    scene.break_at(2, error)
    with pytest.raises(error):
        scene.embed(force=True)
    plan = scene.plan()

    assert scene.values() == {number: 10.0 * number for number in range(1, 6)}
    assert plan.is_current
    assert plan.header == complete
    assert "earlier results stay, as they are valid for 5 of its chips" in caplog.text


def test_outdated_results_are_replaced_by_those_of_a_failed_run(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: 20, 3: 30})
    scene.embed()
    scene.put("27WXN", {1: 11, 2: 22, 3: 33})

    scene.break_at(3)
    with pytest.raises(TransferFailed):
        scene.embed(force=True)

    assert scene.values() == {1: 11.0, 2: 22.0}


def test_unfinished_results_are_not_published(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: 20, 3: 30})

    scene.break_at(3)
    with pytest.raises(TransferFailed):
        scene.embed()

    with pytest.raises(
        ResultsMissing, match=r"results for 2 of its 3 chips: materialize chip_embeddings to its end"
    ):
        publish_tile(scene.work, scene.output, "27WXN", version=1, target=scene.encoder().target())


def test_a_full_disk_does_not_hide_an_earlier_interrupt(scene: Scene) -> None:
    class FullStore(Store):
        def put(self, target: str, path: Any) -> None:  # noqa: ANN401, ARG002
            raise OSError(28, "No space left on device")

    scene.put("27WXN", {1: 10, 2: 20, 3: 30})

    scene.break_at(2, KeyboardInterrupt)
    scene.work = FullStore(scene.root / "work")

    with pytest.raises(KeyboardInterrupt):
        scene.embed()


def test_a_tile_of_bad_chips_fails_with_the_reasons_and_does_not_read_them_again(scene: Scene) -> None:
    scene.put("27WXN", {1: BROKEN, 2: BROKEN, 3: chip_of_value(1)[:2_000]})

    for reads in ([1, 2, 3], []):
        with pytest.raises(
            NoUsableChips, match=r"none of its 3 chips can be used \(2 format, 1 corrupt\); the first: "
        ):
            scene.embed()
        assert scene.chips.take_reads() == reads

    assert scene.values() == {1: "format", 2: "format", 3: "corrupt"}


def test_a_tile_whose_chips_become_usable_is_embedded(scene: Scene) -> None:
    scene.put("27WXN", {1: BROKEN})
    with pytest.raises(NoUsableChips):
        scene.embed()

    scene.put("27WXN", {1: 10})
    scene.embed()

    assert scene.values() == {1: 10.0}


def test_results_that_another_run_replaced_fail_only_their_tile(scene: Scene) -> None:
    for tile in ("27WXN", "27WXP"):
        scene.put(tile, {1: 10})
        scene.embed(tile)
        scene.put(tile, dict.fromkeys(range(2, 100), BROKEN))  # more than the stream may hold
    plans = [scene.plan("27WXN"), scene.plan("27WXP")]
    scene.put("27WXN", {100: BROKEN})
    scene.embed("27WXN")  # the other run, with one more chip

    def work() -> ResultsHeader:
        with scene.run(*plans) as run:
            with pytest.raises(ResultsChanged, match="another run stored results of tile 27WXN"):
                embed_planned(plans[0], run, scene.work)
            return embed_planned(plans[1], run, scene.work)

    assert within(TIMEOUT, work).summary.chips == 99


def test_results_that_another_run_finished_are_used(scene: Scene) -> None:
    scene.put("27WXN", {1: 10})
    scene.embed("27WXN")
    scene.put("27WXN", {2: 20, 3: BROKEN})
    plan = scene.plan("27WXN")
    finished = scene.embed("27WXN")  # the other run

    with scene.run(plan) as run:
        assert within(TIMEOUT, lambda: embed_planned(plan, run, scene.work)) == finished


def test_damaged_results_are_recreated(scene: Scene) -> None:
    scene.put("27WXN", {1: 10})
    scene.embed()
    scene.work.write(key_of(scene), b"no Parquet")

    scene.embed()

    assert scene.values() == {1: 10.0}


def test_results_with_damaged_pages_are_recreated_and_block_no_other_tile(scene: Scene) -> None:
    for tile in ("27WXN", "27WXP"):
        scene.put(tile, {1: 10, 2: 20})
        scene.embed(tile)
        scene.put(tile, {3: 30})
    damage_pages(scene.work, "27WXN", "source_url", scene.encoder().target().preferred)

    plans = [scene.plan("27WXN"), scene.plan("27WXP")]
    scene.embed("27WXN")

    assert [todo(plan) for plan in plans] == [[1, 2, 3], [3]]
    assert scene.values() == {1: 10.0, 2: 20.0, 3: 30.0}


def test_damaged_vectors_fail_their_tile_with_a_remedy(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: 20})
    scene.embed()
    scene.put("27WXN", {3: 30})
    damage_pages(scene.work, "27WXN", "embeddings", scene.encoder().target().preferred)

    with pytest.raises(ResultsChanged, match="results of tile 27WXN are damaged: embed it again with force"):
        scene.embed()
    scene.embed(force=True)

    assert scene.values() == {1: 10.0, 2: 20.0, 3: 30.0}


def test_a_missing_bucket_of_results_is_a_systemic_error(bucket: S3Bucket, scene: Scene) -> None:
    work = Store("s3://no-such-bucket/work", bucket.options)

    with pytest.raises(BucketMissing) as caught:
        plan_tile(work, "27WXN", [], scene.encoder().target())

    assert caught.value.systemic


def test_a_tiles_chips_are_fetched_while_the_previous_tile_is_stored(scene: Scene) -> None:
    for tile in ("27WXN", "27WXP"):
        scene.put(tile, {1: 10, 2: 20})
    plans = [scene.plan("27WXN"), scene.plan("27WXP")]
    next_tile = threading.Event()

    def note(chip: StoredObject) -> None:
        if "27WXP" in chip.url:
            next_tile.set()

    class SlowStore(Store):
        def put(self, target: str, path: Any) -> None:  # noqa: ANN401
            if "27WXN" in target:
                assert next_tile.wait(TIMEOUT)
            super().put(target, path)

    scene.chips.before = note
    work_store = SlowStore(scene.root / "work")

    def work() -> list[int]:
        with scene.run(*plans) as run:
            return [embed_planned(plan, run, work_store).summary.embedded for plan in plans]

    assert within(TIMEOUT, work) == [2, 2]


def test_a_run_summarises_its_batches_in_one_line(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: 20, 3: 30})
    plan = scene.plan()
    with scene.run(plan) as run:
        embed_planned(plan, run, scene.work)
    done = run.describe()
    with scene.run(scene.plan()) as run:
        nothing = run.describe()

    assert done.startswith("clay-v0-custom-4x1 at fp32 on cpu: 2 batches, the encoder waited ")
    assert nothing == "no chip had to be embedded: no network was loaded"


def test_a_run_explains_why_auto_chose_fp32(scene: Scene) -> None:
    scene.put("27WXN", {1: 10})
    scene.embed()  # at fp32
    scene.put("27WXN", {2: 20})
    encoder = scene.encoder(precision="auto")
    plan = scene.plan(encoder=encoder)
    with scene.run(plan, encoder=encoder) as run:
        embed_planned(plan, run, scene.work)

    assert (
        "at fp32 (auto: the device does not multiply bf16 natively, or the tiles had it already) on cpu"
        in run.describe()
    )


@pytest.mark.parametrize("late", [False, True], ids=["the consumer keeps up", "the consumer is late"])
def test_seconds_of_the_tiles_of_a_run_add_up_to_its_wall_time(scene: Scene, late: bool) -> None:
    tiles = ("27WXN", "27WXP", "27WXQ")
    for tile in tiles:
        scene.put(tile, dict.fromkeys(range(4), 10))
    plans = [scene.plan(tile) for tile in tiles]
    encoder = scene.encoder(embedder=MeanEmbedder(pause=0.15))

    def work() -> tuple[list[TileSummary], float]:
        started = time.perf_counter()
        with scene.run(*plans, encoder=encoder) as run:
            while late and sum(encoder.embedder.batches) < 12:
                time.sleep(0.01)
            summaries = [embed_planned(plan, run, scene.work).summary for plan in plans]
            return summaries, time.perf_counter() - started

    summaries, wall = within(TIMEOUT, work)

    seconds = sum(summary.seconds for summary in summaries)
    assert sum(summary.encoded for summary in summaries) == 12
    assert 6 * 0.15 <= seconds <= wall  # at least what the batches take


def test_seconds_of_a_tile_exclude_the_time_before_it_was_added(scene: Scene) -> None:
    for tile in ("27WXN", "27WXP"):
        scene.put(tile, {1: 10, 2: 20})
    encoder = scene.encoder()

    def work() -> tuple[float, float]:
        with EmbeddingRun(scene.chips, encoder, Progress()) as run:
            for tile in ("27WXN", "27WXP"):
                plan = scene.plan(tile)
                added = time.perf_counter()
                run.add(plan)
                seconds = embed_planned(plan, run, scene.work).summary.seconds
                most = time.perf_counter() - added
                time.sleep(0.1)  # as while other tiles are planned
        return seconds, most

    seconds, most = within(TIMEOUT, work)

    assert 0 < seconds <= most


def test_results_pair_each_vector_with_its_chip(scene: Scene) -> None:
    values = {
        number: int(value) for number, value in enumerate(np.random.default_rng(0).integers(0, 250, 30))
    }
    scene.put("27WXN", values)

    scene.embed()

    assert scene.values() == {number: float(value) for number, value in values.items()}
