"""A bad chip in a run of several tiles is recorded as a skip, and all other chips are embedded."""

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from clay_assets.chips import READER_VERSION
from clay_assets.embedding.plan import TilePlan, plan_tile
from clay_assets.embedding.stream import EncodingFailed
from clay_assets.pipeline import RunStopped, TileOutcome
from clay_assets.publishing.schema import read_provenance
from clay_assets.state import TileStores, survey
from clay_assets.storage import AccessDenied, S3Options, Store, StoredObject, TransferFailed
from clay_assets_tests.embedding.scene import Scene, errors, process, reasons
from clay_assets_tests.embedding.streaming import (
    BROKEN,
    TILES,
    MeanEmbedder,
    chip_of_value,
    number_of,
)
from clay_assets_tests.geotiffs import BAD_CHIPS, chip_bytes, chip_name, filled_pixels
from clay_assets_tests.s3_server import S3Bucket, client
from clay_model import Level

NAME = "{}_20200615_20200615_v001.gpq".format


class Overflowing(MeanEmbedder):
    """Returns infinite vectors for chips whose pixels are at least `least`."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self._least = least

    def encode(self, pixels: Tensor, places: Tensor, dates: Tensor, level: Level) -> Tensor:
        """As `MeanEmbedder`, or infinity."""
        vectors = super().encode(pixels, places, dates, level)
        return torch.where(vectors < self._least, vectors, torch.inf)


@pytest.mark.parametrize("kind", ["lowest float32", "highest float32", "a vector that is not finite"])
def test_a_chip_of_extreme_pixels_is_skipped_and_all_tiles_are_published(scene: Scene, kind: str) -> None:
    tiles = TILES[:4]
    for tile in tiles:
        scene.put(tile, {1: 10, 2: 20, 3: 30})
    reason = "range" if kind in BAD_CHIPS else "vector"
    scene.put(tiles[1], {2: BAD_CHIPS[kind].make() if kind in BAD_CHIPS else 200})

    outcomes = process(scene, tiles, encoder=scene.encoder(embedder=Overflowing(200)), check=True)

    assert errors(outcomes) == dict.fromkeys(tiles, "")
    assert [reasons(outcome) for outcome in outcomes.values()] == [{}, {2: reason}, {}, {}]
    assert scene.values(tiles[1]) == {1: 10.0, 2: reason, 3: 30.0}
    assert scene.output_files() == sorted(map(NAME, tiles))
    accounts = [outcome.reports["results"].faults for outcome in outcomes.values()]
    assert not any("every_chip_accounted_for" in faults for faults in accounts)


def test_a_checkpoint_whose_first_vectors_are_all_not_finite_stops_the_run(scene: Scene) -> None:
    for tile in TILES[:3]:
        scene.put(tile, dict.fromkeys(range(1, 7), 10))
    recorded: list[TileOutcome] = []

    with pytest.raises(RunStopped, match="weights are damaged") as stopped:
        process(scene, TILES[:3], recorded.append, encoder=scene.encoder(embedder=Overflowing(0)))

    assert isinstance(stopped.value.outcome.error, EncodingFailed)
    assert [outcome.tile for outcome in recorded] == TILES[:1]
    assert scene.output_files() == []


def test_another_limit_of_no_data_reads_only_the_chips_that_it_affects(
    scene: Scene,
) -> None:
    shares = {1: 0, 2: 64, 3: 256}  # rows of 512 that hold 0
    scene.put("27WXN", {number: chip_bytes(filled_pixels(0, rows)) for number, rows in shares.items()})
    (first,) = process(scene, ["27WXN"]).values()
    with scene.results() as results:
        column = results.columns(["nodata"])["nodata"].to_pylist()
    published = pq.read_schema(scene.root / "output" / NAME("27WXN")).names
    scene.chips.take_reads()

    more = scene.encoder(max_nodata=0.6)
    (raised,) = process(scene, ["27WXN"], encoder=more).values()
    read_again = scene.chips.take_reads()
    less = scene.encoder(max_nodata=0.1)
    (lowered,) = process(scene, ["27WXN"], encoder=less).values()

    assert reasons(first) == {3: "nodata"}
    assert column == [0, 0.125, None]
    assert first.results is not None
    assert first.results.summary.nodata == 0.0625
    assert published == ["source_url", "date", "embeddings", "geometry"]
    assert (reasons(raised), read_again, sum(more.embedder.batches)) == ({}, [3], 1)
    assert (reasons(lowered), scene.chips.take_reads()) == ({2: "nodata", 3: "nodata"}, [2, 3])
    assert less.embedder.batches == []
    rows = [outcome.published.rows for outcome in (first, raised, lowered) if outcome.published]
    assert rows == [2, 3, 1]


def test_a_chip_named_for_another_tile_is_neither_embedded_nor_published(scene: Scene) -> None:
    scene.put("27WXN", {1: 10})
    scene.chips.write(f"27WXN/2020-06-15/{chip_name(2, tile='18HYB')}", chip_of_value(20))

    (outcome,) = process(scene, ["27WXN"]).values()

    assert reasons(outcome) == {2: "name"}
    assert outcome.published is not None
    assert outcome.published.rows == 1


class Forbidding:
    """Denies reads of some chips."""

    def __init__(self, *chips: tuple[str, int]) -> None:
        self.chips = set(chips)

    def __call__(self, chip: StoredObject) -> None:
        """Raise the error for a chip."""
        if (chip.url.split("/")[-3], number_of(chip)) in self.chips:
            raise AccessDenied(f"{chip.url}: these credentials may not read it")


def test_a_denied_object_is_skipped_and_read_again_only_with_retry_skipped(scene: Scene) -> None:
    scene.put("27WXN", {1: 10, 2: 20, 3: 30})
    scene.put("27WXP", {1: 10})
    forbidding = scene.chips.before = Forbidding(("27WXN", 2))

    outcomes = process(scene, ["27WXN", "27WXP"])
    scene.chips.take_reads()
    forbidding.chips.clear()
    process(scene, ["27WXN"])
    without_retry = scene.chips.take_reads()
    (again,) = process(scene, ["27WXN"], retry_skipped=True).values()

    assert errors(outcomes) == {"27WXN": "", "27WXP": ""}
    assert reasons(outcomes["27WXN"]) == {2: "unreadable"}
    assert outcomes["27WXN"].published is not None
    assert outcomes["27WXN"].published.rows == 2
    assert (without_retry, scene.chips.take_reads()) == ([], [2])
    assert (reasons(again), scene.values()) == ({}, {1: 10.0, 2: 20.0, 3: 30.0})


def test_a_tile_whose_chips_are_all_denied_fails_without_recording_skips_and_stops_no_other(
    scene: Scene,
) -> None:
    for tile in ("27WXN", "27WXP"):
        scene.put(tile, {1: 10, 2: 20})
    forbidding = scene.chips.before = Forbidding(("27WXN", 1), ("27WXN", 2))

    outcomes = process(scene, ["27WXN", "27WXP"])
    kept = [item.url for item in scene.work.list("chip_embeddings/") if "27WXN" in item.url]
    forbidding.chips.clear()
    process(scene, ["27WXN"])

    assert errors(outcomes) == {"27WXN": "AccessDenied", "27WXP": ""}
    assert "none of the 2 chips of tile 27WXN may be read" in str(outcomes["27WXN"].error)
    assert kept == []
    assert scene.values() == {1: 10.0, 2: 20.0}


def test_private_and_archived_objects_of_a_public_bucket_are_skipped(bucket: S3Bucket, scene: Scene) -> None:
    s3 = client(bucket.endpoint)
    s3.put_bucket_acl(Bucket=bucket.name, ACL="public-read")
    for number, how in {1: {}, 2: {"ACL": "private"}, 3: {"StorageClass": "GLACIER"}, 4: {}}.items():
        key = f"chips/27WXN/2020-06-15/{chip_name(number)}"
        content = chip_of_value(10 * number)
        s3.put_object(Bucket=bucket.name, Key=key, Body=content, **{"ACL": "public-read", **how})
    anonymous = S3Options(endpoint_url=bucket.endpoint, region_name="us-east-1", use_unsigned_session=True)
    stores = TileStores(Store(bucket.uri("chips"), anonymous), scene.work, scene.output)

    (outcome,) = process(scene, ["27WXN"], stores=stores).values()

    assert outcome.error is None
    assert reasons(outcome) == {2: "unreadable", 3: "unreadable"}
    assert scene.values() == {1: 10.0, 2: "unreadable", 3: "unreadable", 4: 40.0}


def test_several_failed_tiles_do_not_stop_a_run(scene: Scene) -> None:
    tiles = TILES[:6]
    for tile in tiles:
        scene.put(tile, {1: 10, 2: 20})

    def fail(chip: StoredObject) -> None:
        if number_of(chip) == 2 and chip.url.split("/")[-3] in tiles[:4]:
            raise TransferFailed("the connection broke")

    scene.chips.before = fail
    for _ in range(2):
        outcomes = process(scene, tiles)
        assert list(errors(outcomes).values()) == ["TransferFailed"] * 4 + [""] * 2

    assert scene.output_files() == sorted(map(NAME, tiles[4:]))


def test_a_bug_in_planning_a_tile_fails_only_that_tile(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for tile in TILES[:3]:
        scene.put(tile, {1: 10})

    def plan(work: Store, tile: str, *arguments: object, **options: bool) -> TilePlan:
        if tile == TILES[1]:
            raise KeyError("a missing column")
        return plan_tile(work, tile, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("clay_assets.pipeline.planner.plan_tile", plan)

    assert errors(process(scene, TILES[:3])) == {TILES[0]: "", TILES[1]: "KeyError", TILES[2]: ""}


def test_a_newer_chip_reader_reads_only_skipped_chips_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.put("27WXN", {1: 10, 2: BROKEN, 3: 30})
    scene.put("27WXP", {1: 10})
    process(scene, ["27WXN", "27WXP"])
    scene.chips.take_reads()
    for module in ("state.comparison", "results.outcomes", "embedding.run"):
        monkeypatch.setattr(f"clay_assets.{module}.READER_VERSION", READER_VERSION + 1)
    encoder = scene.encoder()

    outcomes = process(scene, ["27WXN", "27WXP"], encoder=encoder)

    assert scene.chips.take_reads() == [2]
    assert encoder.embedder.batches == []
    assert scene.values() == {1: 10.0, 2: "format", 3: 30.0}
    assert [outcome.published.written for outcome in outcomes.values() if outcome.published] == [False] * 2
    process(scene, ["27WXN", "27WXP"])
    assert scene.chips.take_reads() == []


def test_a_newer_file_format_publishes_again_and_embeds_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.put("27WXN", {1: 10})
    process(scene, ["27WXN"])
    scene.chips.take_reads()
    monkeypatch.setattr("clay_assets.publishing.versions.FORMAT_VERSION", 99)
    (before,) = survey(scene.stores, ["27WXN"], scene.encoder().target(), 1)

    (outcome,) = process(scene, ["27WXN"]).values()

    assert before.state == "unpublished"
    assert outcome.reused
    assert outcome.published is not None
    assert outcome.published.written
    assert read_provenance(scene.root / "output" / NAME("27WXN"))["format"] == "99"
    assert scene.chips.take_reads() == []


def test_a_tile_whose_chips_were_all_removed_keeps_its_published_file(scene: Scene) -> None:
    for tile in ("27WXN", "27WXP"):
        scene.put(tile, {1: 10})
    process(scene, ["27WXN", "27WXP"])
    scene.chips.delete(f"27WXN/2020-06-15/{chip_name(1)}")

    outcomes = process(scene, ["27WXN", "27WXP"])

    assert outcomes["27WXN"].empty
    assert scene.output_files() == [NAME("27WXN"), NAME("27WXP")]
