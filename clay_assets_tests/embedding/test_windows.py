"""Chips of several windows, from the bucket to published rows: order, places, vectors, counts."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from numpy.typing import NDArray

from clay_assets.chips import read_chip
from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.publishing.schema import read_provenance
from clay_assets.publishing.validation import validate
from clay_assets.results import Fingerprint
from clay_assets.state import survey
from clay_assets.storage import Store
from clay_assets_tests import recipe
from clay_assets_tests.checkpoints import lightning_checkpoint, lightning_checkpoint_v15, write_checkpoint
from clay_assets_tests.embedding.scene import Scene, errors, process, reasons
from clay_assets_tests.embedding.streaming import BROKEN, MeanEmbedder
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels
from clay_model import Level, load_encoder
from clay_model.spec import V15

TILE = "27WXN"
WEST, NORTH = 600_000, 7_700_040
"""Upper left corner of the chips, metres of EPSG:32627."""


@pytest.fixture(scope="session")
def quick_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of Clay v1.5 with two layers and vectors of 64 numbers."""
    path = tmp_path_factory.mktemp("checkpoints") / "clay-v1.5-custom.ckpt"
    return write_checkpoint(path, lightning_checkpoint_v15("custom"))


def settings(scene: Scene, path: Path, level: str = "") -> EncoderSettings:
    """A real checkpoint on the CPU."""
    return EncoderSettings(
        Store(path), level=level, precision="fp32", device="cpu", cache=scene.root / "cache", batch_size="2"
    )


def put(scene: Scene, chips: Mapping[str, bytes]) -> None:
    """Store chips by their names."""
    for name, data in chips.items():
        scene.chips.write(f"{TILE}/2020-06-15/{name}", data)
    scene.take_inventory(TILE)


def quartered(first: int) -> bytes:
    """A chip whose four windows hold `first` and the three numbers after it."""
    quarters = np.arange(first, first + 4, dtype=np.uint8).reshape(2, 2)
    pixels = np.broadcast_to(quarters.repeat(256, 0).repeat(256, 1), (13, 512, 512)).copy()
    pixels[9] = 1
    return chip_bytes(pixels)


def vectors_of(path: str) -> NDArray[np.float32]:
    column: NDArray[np.float32] = pq.read_table(path)["embeddings"].combine_chunks().to_numpy_ndarray()
    return column


def expected(path: Path, data: bytes, name: str, level: Level = "cls") -> NDArray[np.float32]:
    """The oracle: a chip's windows, cut here and embedded by the model's own API."""
    chip = read_chip(data, name, spec=V15)
    cuts = [slice(0, 256), slice(256, 512)] if chip.pixels.shape[1] == 512 else [slice(0, 256)]
    windows = np.stack([chip.pixels[:10, rows, columns] for rows, columns in product(cuts, cuts)])
    lonlat = [window.lonlat for window in chip.windows]
    moments = [chip.time or chip.date] * len(windows)
    return load_encoder(path, "cpu", "fp32").embed(windows, lonlat=lonlat, dates=moments, level=level)


def test_chips_become_rows_by_date_number_and_window_each_with_its_own_place_and_vector(
    scene: Scene, quick_checkpoint: Path
) -> None:
    later = chip_name(1, date="2020-06-16")
    chips = {
        later: chip_bytes(recipe.chip_pixels("later", 256)[:10], date="2020-06-16"),
        chip_name(2): chip_bytes(recipe.chip_pixels("earlier")),
    }
    put(scene, chips)

    (outcome,) = process(scene, [TILE], encoder=settings(scene, quick_checkpoint)).values()

    assert outcome.error is None
    assert outcome.published is not None
    file = Path(outcome.published.url)
    assert validate(file, name=file.name) == []
    table = pq.read_table(file)
    names = [url.rpartition("/")[2] for url in table["source_url"].to_pylist()]
    assert names == [chip_name(2)] * 4 + [later]
    reference = np.concatenate(
        [expected(quick_checkpoint, chips[name], name) for name in (chip_name(2), later)]
    )
    np.testing.assert_allclose(vectors_of(outcome.published.url), reference, rtol=1e-5, atol=1e-6)
    assert min(np.linalg.norm(reference[a] - reference[b]) for a in range(5) for b in range(a)) > 0.01
    to_degrees = pyproj.Transformer.from_crs("EPSG:32627", "OGC:CRS84", always_xy=True)
    footprints = shapely.from_wkb(table["geometry"].to_pylist())
    for footprint, (row, column) in zip(footprints, [*product((0, 1), (0, 1)), (0, 0)], strict=True):
        west, north = WEST + 2_560 * column, NORTH - 2_560 * row
        box = shapely.box(west, north - 2_560, west + 2_560, north)
        degrees = shapely.transform(box, to_degrees.transform, interleaved=False)
        assert footprint.symmetric_difference(degrees).area < 1e-9 * degrees.area
    provenance = read_provenance(file)
    assert (provenance["model"], provenance["level"], provenance["chips"]) == (
        "clay-v1.5-custom-64x2",
        "cls",
        "2",
    )


@pytest.mark.parametrize(
    ("level", "shape"),
    [("cls", (64,)), ("mean", (64,)), ("patch", (32, 32, 64))],
    ids=["cls", "mean", "patch"],
)
def test_each_level_gives_the_vectors_of_the_model(
    scene: Scene, quick_checkpoint: Path, level: Level, shape: tuple[int, ...]
) -> None:
    data = chip_bytes(30 * chip_pixels("uint16", size=256))
    put(scene, {chip_name(1): data})

    (outcome,) = process(scene, [TILE], encoder=settings(scene, quick_checkpoint, level)).values()

    assert outcome.published is not None, outcome.error
    got = vectors_of(outcome.published.url)
    assert got.shape == (1, *shape)
    reference = expected(quick_checkpoint, data, chip_name(1), level)
    np.testing.assert_allclose(got, reference, rtol=1e-4, atol=1e-5)


def test_the_hour_changes_the_vector_and_a_time_of_another_day_is_skipped(
    scene: Scene, quick_checkpoint: Path
) -> None:
    pixels = chip_pixels("uint8", size=256)
    tags = {
        1: None,  # 10:30 mean solar time at 18.4 degrees west: 11:43 UTC
        2: "2020-06-15T11:43:30Z",
        3: "2020-06-15T18:00:00Z",
        4: "2020-06-15T20:00:00+02:00",
        5: "2020-06-16T18:00:00Z",
    }
    put(scene, {chip_name(number): chip_bytes(pixels, time=tag) for number, tag in tags.items()})

    (outcome,) = process(scene, [TILE], encoder=settings(scene, quick_checkpoint)).values()

    assert reasons(outcome) == {5: "date"}
    assert outcome.published is not None
    overpass, same_hour, evening, same_evening = vectors_of(outcome.published.url)
    assert np.linalg.norm(overpass - evening) > 0.01
    np.testing.assert_allclose(evening, same_evening, rtol=1e-5, atol=1e-6)
    assert np.linalg.norm(overpass - same_hour) < 0.02 * np.linalg.norm(overpass - evening)


def test_chips_are_accounted_for_and_windows_are_counted(scene: Scene) -> None:
    one_window = chip_bytes(np.full((10, 256, 256), 50, np.uint8))
    put(scene, {chip_name(1): quartered(10), chip_name(2): BROKEN, chip_name(3): one_window})
    encoder = scene.encoder(embedder=MeanEmbedder(spec=V15))

    (outcome,) = process(scene, [TILE], encoder=encoder, check=True).values()

    assert outcome.results is not None
    summary = outcome.results.summary
    assert (summary.chips, summary.embedded, summary.windows, summary.encoded) == (3, 2, 5, 2)
    assert reasons(outcome) == {2: "format"}
    account = outcome.reports["results"]
    assert account.numbers["every_chip_accounted_for"] == {"chips": 3, "embedded": 2, "skipped": 1}
    assert "every_chip_accounted_for" not in account.faults
    assert outcome.published is not None
    assert outcome.published.rows == 5
    assert vectors_of(outcome.published.url)[:, 0].tolist() == [10, 11, 12, 13, 50]
    scene.chips.take_reads()
    (again,) = process(scene, [TILE], encoder=encoder).values()
    assert (again.reused, scene.chips.take_reads()) == (True, [])


def test_a_changed_chip_is_embedded_with_all_its_windows_and_the_others_keep_theirs(scene: Scene) -> None:
    encoder = scene.encoder(embedder=MeanEmbedder(spec=V15))
    put(scene, {chip_name(1): quartered(10), chip_name(2): quartered(20)})
    process(scene, [TILE], encoder=encoder)
    scene.chips.take_reads()
    put(scene, {chip_name(1): chip_bytes(np.full((10, 256, 256), 99, np.uint8))})

    (outcome,) = process(scene, [TILE], encoder=encoder).values()

    assert scene.chips.take_reads() == [1]
    assert outcome.published is not None
    assert vectors_of(outcome.published.url)[:, 0].tolist() == [99, 20, 21, 22, 23]


@pytest.mark.parametrize("batch_size", ["1", "3", "8"])
def test_a_failed_run_keeps_only_finished_chips_with_all_their_windows(scene: Scene, batch_size: str) -> None:
    put(scene, {chip_name(number): quartered(10 * number) for number in range(1, 6)})
    encoder = scene.encoder(embedder=MeanEmbedder(spec=V15), batch_size=batch_size)

    scene.break_at(5)
    broken = process(scene, [TILE], encoder=encoder)
    with scene.results(encoder=encoder) as results:
        windows = [(row.key[-8:-4], row.window) for row in results.chips()]
        remaining = results.header.remaining
    scene.chips.take_reads()
    scene.chips.before = lambda _: None
    (done,) = process(scene, [TILE], encoder=encoder).values()

    assert errors(broken) == {TILE: "TransferFailed"}
    assert windows == [(f"{number:04}", window) for number in (1, 2, 3, 4) for window in range(4)]
    assert remaining == 1
    assert scene.chips.take_reads() == [5]
    assert done.published is not None
    assert vectors_of(done.published.url)[:, 0].tolist() == [
        10 * number + window for number in range(1, 6) for window in range(4)
    ]


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_a_device_with_too_little_memory_encodes_a_chip_s_windows_in_parts(
    scene: Scene, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    put(scene, {chip_name(number): quartered(10 * number) for number in range(1, 4)})
    encoder = scene.encoder(embedder=MeanEmbedder(spec=V15, most=most), batch_size="8")

    (outcome,) = process(scene, [TILE], encoder=encoder).values()

    assert outcome.published is not None, outcome.error
    assert vectors_of(outcome.published.url)[:, 0].tolist() == [
        10 * number + window for number in range(1, 4) for window in range(4)
    ]
    assert max(encoder.embedder.batches) <= most
    assert sum(encoder.embedder.batches) >= 12
    assert any("out of memory on cpu: continuing with batches of" in message for message in caplog.messages)


def test_each_window_is_encoded_with_its_own_place(scene: Scene) -> None:
    put(scene, {chip_name(1): quartered(10)})
    embedder = MeanEmbedder(spec=V15)

    process(scene, [TILE], encoder=scene.encoder(embedder=embedder, batch_size="4"))

    ((places, _),) = embedder.contexts
    windows = read_chip(quartered(10), chip_name(1), spec=V15).windows
    longitude, latitude = np.radians([window.lonlat for window in windows]).T
    reference = np.stack([np.sin(latitude), np.cos(latitude), np.sin(longitude), np.cos(longitude)], axis=1)
    np.testing.assert_allclose(places.numpy(), reference, atol=1e-6)


def test_both_models_share_one_work_store_and_one_output(
    scene: Scene, tmp_path: Path, quick_checkpoint: Path
) -> None:
    v0 = settings(scene, write_checkpoint(tmp_path / "v0.ckpt", lightning_checkpoint("custom")))
    v15 = settings(scene, quick_checkpoint)
    put(scene, {chip_name(1): chip_bytes(chip_pixels("uint8"))})

    for encoder, version in ((v0, 1), (v15, 2)):
        process(scene, [TILE], encoder=encoder, version=version)
    scene.chips.take_reads()
    back = [
        process(scene, [TILE], encoder=encoder, version=version) for encoder, version in ((v0, 1), (v15, 2))
    ]

    names = scene.output_files()
    provenance = [read_provenance(scene.root / "output" / name) for name in names]
    assert [facts["model"] for facts in provenance] == ["clay-v0-custom-16x1", "clay-v1.5-custom-64x2"]
    assert [facts["level"] for facts in provenance] == ["mean", "cls"]
    assert [pq.read_metadata(scene.root / "output" / name).num_rows for name in names] == [1, 4]
    assert [validate(scene.root / "output" / name, name=name) for name in names] == [[], []]
    assert (scene.chips.take_reads(), [outcome[TILE].reused for outcome in back]) == ([], [True, True])
    kept: list[Fingerprint] = [encoder.target().preferred for encoder in (v0, v15)]
    folders = {path.name for path in (scene.root / "work" / "chip_embeddings").iterdir()}
    assert folders == {fingerprint.folder for fingerprint in kept}
    for encoder, version in ((v0, 1), (v15, 2)):
        (state,) = survey(scene.stores, [TILE], encoder.target(), version)
        assert state.state == "current"
