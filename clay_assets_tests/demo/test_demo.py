from itertools import pairwise
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine

from clay_assets.chips import ChipName, read_chip
from clay_assets.demo.__main__ import main
from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.demo.chips import CHILE, SCENES, Scene, write_chips
from clay_assets.demo.report import show
from clay_assets.publishing.writer import write_geoparquet
from clay_assets.tiles.bounds import tile_bounds, utm_zone
from clay_assets_tests.golden import REAL_CHIPS, REAL_PIXELS
from clay_assets_tests.publishing.geoparquet_rows import PROVENANCE, rows
from clay_model import load_encoder
from clay_model.checkpoint import parameter_shapes
from clay_model.spec import BANDS, SIZES

Pixels = NDArray[np.float32]
each_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.tile)


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's chips of both tiles."""
    root = tmp_path_factory.mktemp("chips")
    for scene in SCENES:
        assert write_chips(root, scene) == 12
    return root


def paths_of(chips: Path, scene: Scene) -> list[Path]:
    """Row by row: three rows of four."""
    return sorted((chips / scene.tile / scene.date.isoformat()).glob("*.tif"))


def read(path: Path) -> Pixels:
    with rasterio.open(path) as chip:
        pixels: Pixels = chip.read()
    return pixels


def place(tile: str) -> Pixels:
    """The real pixels of a place, (13, 224, 224)."""
    with np.load(REAL_PIXELS) as arrays:
        return np.concatenate(
            [arrays[f"{tile}_{part}"] for part in ("optical", "sar", "dem")], dtype="float32"
        )


@each_scene
def test_the_mosaic_of_the_chips_equals_gdals_enlargement(chips: Path, scene: Scene, tmp_path: Path) -> None:
    shown = place(scene.tile)[:, :168]
    pixels = [read(path) for path in paths_of(chips, scene)]
    mosaic = np.concatenate([np.concatenate(pixels[n : n + 4], axis=2) for n in (0, 4, 8)], axis=1)

    options = {"width": 224, "height": 168, "count": 13, "dtype": "float32"}
    transform = Affine(10, 0, 0, 0, -10, 0)
    with rasterio.open(tmp_path / "place.tif", "w", driver="GTiff", transform=transform, **options) as file:
        file.write(shown)
    with rasterio.open(tmp_path / "place.tif") as file:
        enlarged = file.read(out_shape=(13, 1536, 2048), resampling=Resampling.nearest)
    np.testing.assert_array_equal(mosaic, enlarged)


def test_a_chip_at_true_scale_is_the_real_chip_of_the_golden_tests(tmp_path: Path) -> None:
    (golden,) = (chip for chip in REAL_CHIPS if chip.name == CHILE.tile)
    write_chips(tmp_path, CHILE, count=1, span=512)
    (path,) = tmp_path.rglob("*.tif")
    # The golden chip has the place in its middle, this one in its corner; both repeat it every 448 pixels.
    np.testing.assert_array_equal(read(path)[:, :368, :368], golden.pixels()[:, 144:, 144:])
    assert golden.date == CHILE.date


@each_scene
def test_chips_have_the_names_and_layout_of_the_bucket(chips: Path, scene: Scene) -> None:
    day = f"{scene.date:%Y%m%d}"
    expected = [f"claytile_{scene.tile}_{day}_v02_{number:04}.tif" for number in range(1, 13)]
    assert [path.name for path in paths_of(chips, scene)] == expected
    with rasterio.open(paths_of(chips, scene)[0]) as chip:
        assert (chip.driver, chip.shape, chip.dtypes) == ("GTiff", (512, 512), ("float32",) * 13)
        assert chip.descriptions == BANDS
        assert chip.tags()["date"] == scene.date.isoformat()
        assert "Copernicus" in chip.tags()["TIFFTAG_COPYRIGHT"]
        assert (chip.profile["interleave"], chip.profile["compress"]) == ("pixel", "deflate")
        assert chip.block_shapes == [(1, 512)] * 13


@each_scene
def test_the_pipeline_and_rasterio_read_the_same_pixels(chips: Path, scene: Scene) -> None:
    for path in paths_of(chips, scene):
        chip = read_chip(path.read_bytes(), path.name)
        np.testing.assert_array_equal(chip.pixels, read(path))
        assert chip.date == ChipName.parse(path.name).date == scene.date


@pytest.mark.parametrize(("scene", "count"), [*((scene, 12) for scene in SCENES), (CHILE, 48)])
def test_chips_are_inside_their_tile_and_adjacent(tmp_path: Path, scene: Scene, count: int) -> None:
    write_chips(tmp_path, scene, count)
    west, south, east, north = tile_bounds(scene.tile)
    bounds = []
    for path in paths_of(tmp_path, scene):
        with rasterio.open(path) as chip:
            assert chip.crs == utm_zone(scene.tile)
            bounds.append(chip.bounds)
    assert len(bounds) == count
    for box in bounds:
        assert west <= box.left < box.right <= east
        assert south <= box.bottom < box.top <= north
    assert {(box.right - box.left, box.top - box.bottom) for box in bounds} == {(5120, 5120)}
    for first, second in pairwise(bounds):  # the next one in the row, or the first one of the next row
        below = second.left == bounds[0].left and second.top == first.bottom
        assert below or (second.left, second.top) == (first.right, first.top)
    assert len({(box.left, box.top) for box in bounds}) == count


def test_chips_are_reproducible_and_only_missing_ones_are_written(chips: Path, tmp_path: Path) -> None:
    write_chips(tmp_path, CHILE)
    made = {path: path.stat().st_mtime_ns for path in paths_of(tmp_path, CHILE)}
    for path in made:
        assert path.read_bytes() == (chips / path.relative_to(tmp_path)).read_bytes()

    missing = min(made)
    missing.unlink()
    assert write_chips(tmp_path, CHILE) == 1
    assert missing.read_bytes() == (chips / missing.relative_to(tmp_path)).read_bytes()
    assert all(path.stat().st_mtime_ns == time for path, time in made.items() if path != missing)
    assert write_chips(tmp_path, CHILE) == 0
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".tif"}


def test_checkpoint_has_the_names_and_shapes_of_the_real_one(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "tiny.ckpt"
    assert write_untrained_checkpoint(path, model_size="tiny")
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    encoder = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert encoder == {
        f"model.encoder.{name}": shape for name, shape in parameter_shapes(SIZES["tiny"]).items()
    }
    assert content["hyper_parameters"] == {"model_size": "tiny", "untrained": True}
    for name, tensor in state.items():
        scale = tensor.std() * np.sqrt(np.prod(tensor.shape[1:]))
        assert tensor.ndim == 1 or float(scale) == pytest.approx(1, abs=0.1), name


def test_the_untrained_checkpoint_gives_different_chips_different_embeddings(
    tmp_path: Path, chips: Path
) -> None:
    path = tmp_path / "tiny.ckpt"
    write_untrained_checkpoint(path, model_size="tiny")
    encoder = load_encoder(path, device="cpu", precision="fp32")
    assert encoder.untrained
    vectors = encoder.embed(
        np.stack([read(path) for path in paths_of(chips, CHILE)[:4]]),
        lonlat=np.array([[-72.5, -38.8]] * 4),
        dates=[CHILE.date] * 4,
        level="mean",
    )
    unit = np.asarray(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(4, 1)]
    assert cosines.max() < 0.9999
    assert np.ptp(cosines) > 0.005


def test_the_checkpoint_is_reproducible(tmp_path: Path) -> None:
    first, second = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    for path in (first, second):
        assert write_untrained_checkpoint(path, model_size="tiny")
    assert first.read_bytes() == second.read_bytes()


def test_an_existing_checkpoint_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "trained.ckpt"
    path.write_bytes(b"weeks of training")
    assert not write_untrained_checkpoint(path, model_size="tiny")
    assert path.read_bytes() == b"weeks of training"


def test_make_writes_missing_files_only_and_names_the_checkpoint_untrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["make", "--model", "v0", "--model-size", "tiny"]) == 0
    assert "UNTRAINED: made" in capsys.readouterr().out
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert {str(path.relative_to(tmp_path).parent) for path in made} == {
        *("data/chips/18HYB/2020-04-08", "data/chips/22JGS/2021-07-23", "checkpoints")
    }
    assert (tmp_path / "checkpoints" / "clay-v0-tiny-untrained.ckpt") in made

    assert main(["make", "--model-size", "tiny"]) == 0
    assert capsys.readouterr().out.count("all there") == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == made


def test_show_summarizes_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("embeddings", "27WXN_20200615_20210703_v001.gpq")
    file.parent.mkdir()
    provenance = PROVENANCE | {"weights": "untrained: random numbers"}
    write_geoparquet(file, [rows(6)], (768,), provenance)
    text = "\n".join(show(file.parent))
    assert max(map(len, text.splitlines())) <= 100
    for words in ("6 rows", "UNTRAINED", "dg dev", "CLAY_CHECKPOINT=s3://", "duckdb"):
        assert words in text

    published = geopandas.read_parquet(file)
    vectors = np.stack(list(published["embeddings"]))
    cosines = vectors @ vectors[0] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[0])
    for row in range(3):
        name = published["source_url"][row].rsplit("/", 1)[-1]
        assert f"{name}  {published['date'][row]:%Y-%m-%d}  [{vectors[row][0]:.2f}, " in text
        assert f"(768)  {cosines[row]:.4f}" in text
    assert f"lowest similarity {cosines.min():.4f}" in text


def test_show_names_trained_weights(tmp_path: Path) -> None:
    path = tmp_path / "27WXN_20200615_20210703_v001.gpq"
    write_geoparquet(path, [rows(2)], (768,), PROVENANCE | {"weights": "as the checkpoint has them"})
    text = "\n".join(show(tmp_path))
    assert "UNTRAINED" not in text
    assert "as the checkpoint has them" in text


def test_show_without_files_names_the_command_that_makes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "--output", str(tmp_path)]) == 1
    assert "make demo" in capsys.readouterr().err
