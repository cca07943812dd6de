import datetime
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray

from clay_assets.chips import ChipName, read_chip
from clay_assets.demo import show, write_chips_of_tile, write_untrained_checkpoint
from clay_assets.demo.__main__ import main
from clay_assets.demo.chips import GRID_SIDE, block_of, scene_of
from clay_assets.demo.cover import Cover, lay_cover
from clay_assets.demo.erosion import erode
from clay_assets.demo.noise import NoiseWindow
from clay_assets.demo.relief import raise_relief
from clay_assets.demo.rendering import SPECTRA
from clay_assets.demo.scenes import SCENES, Scene
from clay_assets.publishing import write_geoparquet
from clay_assets_tests.publishing import geoparquet_rows
from clay_assets_tests.publishing.geoparquet_rows import PROVENANCE, rows
from clay_model import load_encoder
from clay_model.checkpoint import parameter_shapes
from clay_model.spec import BANDS, SIZES

Pixels = NDArray[np.float32]
Views = Mapping[tuple[str, datetime.date, int], Pixels]
Covers = Mapping[tuple[str, int], Cover]

# Sentinel-2's own tiles, 109,800 m wide: code of the UTM zone; west, south, east, north in its metres.
SENTINEL_2_TILES = {
    "27WXN": (32627, 600_000, 7_190_220, 709_800, 7_300_020),
    "18HYB": (32718, 699_960, 5_590_240, 809_760, 5_700_040),
}
BLUE, GREEN, RED, NIR, SWIR = (BANDS.index(band) for band in ("B02", "B03", "B04", "B08", "B11"))
VH, VV, DEM = (BANDS.index(band) for band in ("vh", "vv", "dem"))


def read(path: Path) -> Pixels:
    with rasterio.open(path) as chip:
        pixels: Pixels = chip.read()
    return pixels


def ndvi(pixels: Pixels) -> Pixels:
    near, red = pixels[NIR], pixels[RED]
    index: Pixels = (near - red) / (near + red)
    return index


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two by two neighbours of each tile, on each of its two dates."""
    root = tmp_path_factory.mktemp("chips")
    for scene in SCENES:
        assert write_chips_of_tile(root, scene.tile, 8) == 8
    return root


@pytest.fixture(scope="module")
def views(chips: Path) -> Views:
    """Pixels by tile, date and number."""
    names = {path: ChipName.parse(path.name) for path in sorted(chips.rglob("*.tif"))}
    return {(name.tile, name.date, name.number): read(path) for path, name in names.items()}


@pytest.mark.parametrize("tile", SENTINEL_2_TILES)
def test_chips_lie_on_the_grid_of_their_sentinel_2_tile(chips: Path, tile: str) -> None:
    epsg, west, south, east, north = SENTINEL_2_TILES[tile]
    paths = sorted((chips / tile).rglob("*.tif"))
    assert len(paths) == 8
    for path in paths:
        with rasterio.open(path) as chip:
            bounds = chip.bounds
            assert chip.crs.to_epsg() == epsg
            assert (bounds.right - bounds.left, bounds.top - bounds.bottom) == (5120, 5120)
        assert west <= bounds.left < bounds.right <= east
        assert south <= bounds.bottom < bounds.top <= north
        row, column = (north - bounds.top) / 5120, (bounds.left - west) / 5120
        assert ChipName.parse(path.name).number == row * GRID_SIDE + column + 1


def test_chips_are_laid_out_as_the_bucket_has_them(chips: Path) -> None:
    path = chips / "27WXN" / "2020-06-15" / "claytile_27WXN_20200615_v02_0175.tif"
    with rasterio.open(path) as chip:
        assert (chip.driver, chip.shape, chip.dtypes) == ("GTiff", (512, 512), ("float32",) * 13)
        assert chip.descriptions == BANDS
        assert chip.tags()["date"] == "2020-06-15"
        assert chip.profile["interleave"] == "pixel"
        assert chip.profile["compress"] == "deflate"
        assert chip.block_shapes == [(1, 512)] * 13


def test_the_pipeline_reads_the_chips_as_rasterio_does(chips: Path) -> None:
    for path in (min(chips.rglob("*.tif")), max(chips.rglob("*.tif"))):
        chip = read_chip(path.read_bytes(), path.name)
        np.testing.assert_array_equal(chip.pixels, read(path))
        assert chip.date == ChipName.parse(path.name).date


def test_tiled_chips_hold_the_same_pixels(chips: Path, tmp_path: Path) -> None:
    write_chips_of_tile(tmp_path, "18HYB", 1, layout="tiles")
    (tiled,) = tmp_path.rglob("*.tif")
    with rasterio.open(tiled) as chip:
        assert chip.block_shapes == [(256, 256)] * 13
    np.testing.assert_array_equal(read(tiled), read(chips / tiled.relative_to(tmp_path)))


def test_a_chip_is_the_same_whatever_is_made_beside_it(chips: Path, tmp_path: Path) -> None:
    write_chips_of_tile(tmp_path, "27WXN", 1)
    (alone,) = tmp_path.rglob("*.tif")
    assert alone.read_bytes() == (chips / alone.relative_to(tmp_path)).read_bytes()


def test_a_second_call_writes_nothing_and_a_missing_or_broken_chip_again(chips: Path, tmp_path: Path) -> None:
    write_chips_of_tile(tmp_path, "18HYB", 4)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tif")}
    assert write_chips_of_tile(tmp_path, "18HYB", 4) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tif")} == before

    missing, broken, kept, _ = sorted(before)
    missing.unlink()
    broken.write_bytes(b"no TIFF")
    assert write_chips_of_tile(tmp_path, "18HYB", 4) == 2
    for path in (missing, broken):
        assert path.read_bytes() == (chips / path.relative_to(tmp_path)).read_bytes()
    assert kept.stat().st_mtime_ns == before[kept]
    assert not list(tmp_path.rglob("*.part"))


def jump(left: Pixels, right: Pixels) -> float:
    """Mean difference between two lines of pixels."""
    return float(np.abs(left - right).mean())


@pytest.mark.parametrize("band", [RED, NIR, DEM])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.tile)
def test_neighbouring_chips_continue_each_other(views: Views, scene: Scene, band: int) -> None:
    date = scene.seasons[0].date
    north_west, north_east, south_west, _ = (
        views[scene.tile, date, place.number][band] for place in block_of(scene, 4)
    )
    for first, second in ((north_west, north_east), (north_west.T, south_west.T)):
        inside = [
            *(jump(first[:, n], first[:, n + 1]) for n in range(480, 511)),
            *(jump(second[:, n], second[:, n + 1]) for n in range(32)),
        ]
        assert min(inside) / 1.5 < jump(first[:, -1], second[:, 0]) < 1.5 * max(inside)
        assert jump(first[:, -1], second[:, 100]) > 1.5 * max(inside)  # what lies elsewhere would show


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.tile)
def test_the_ground_stays_and_the_plants_change_between_the_dates(views: Views, scene: Scene) -> None:
    first, second = (season.date for season in scene.seasons)
    number = block_of(scene, 1)[0].number
    before, after = views[scene.tile, first, number], views[scene.tile, second, number]
    np.testing.assert_array_equal(before[DEM], after[DEM])
    assert np.abs(ndvi(before) - ndvi(after)).mean() > 0.03
    speckle = np.corrcoef(np.log(before[VV]).ravel(), np.log(after[VV]).ravel())[0, 1]
    assert 0.2 < speckle < 0.99


@pytest.fixture(scope="module")
def covers() -> Covers:
    """What covers each of the chips, by tile and number."""
    found = {}
    for scene in SCENES:
        for place in block_of(scene, 4):
            corner = 512 * place.row, 512 * place.column
            relief = raise_relief(scene.terrain, *corner, 512)
            noise = NoiseWindow(scene.terrain.seed, *corner, 512, 512)
            found[scene.tile, place.number] = lay_cover(scene.vegetation, relief, noise)
    return found


def pixels_of(views: Views, covers: Covers, name: str) -> Pixels:
    """All pixels of all chips that one cover has to itself, (13, pixels)."""
    found = []
    for (tile, _, number), pixels in views.items():
        cover = covers[tile, number]
        hidden = {"water": 0, "forest": cover.water + cover.rock + cover.gravel + cover.farmland}[name]
        snow = (pixels[GREEN] - pixels[SWIR]) / (pixels[GREEN] + pixels[SWIR]) > 0.4
        found.append(pixels[:, (getattr(cover, name) - hidden > 0.98) & ((name == "water") | ~snow)])
    return np.concatenate(found, axis=1)


def test_water_is_dark_in_the_infrared_and_to_the_radar(views: Views, covers: Covers) -> None:
    water = pixels_of(views, covers, "water")
    assert water.shape[1] > 100_000
    assert np.percentile(ndvi(water), 99) < 0
    assert np.percentile(water[NIR], 99) < 400
    assert np.median(water[SWIR]) < np.median(water[NIR]) < np.median(water[RED]) < np.median(water[BLUE])
    assert np.median(water[VV]) < 0.01
    # Of a gamma distribution of 4.5 looks, as a multiple of the mean.
    assert water[VV].std() / water[VV].mean() == pytest.approx(1 / np.sqrt(4.5), rel=0.1)


def test_forest_is_green_with_a_red_edge_and_bright_to_the_radar(views: Views, covers: Covers) -> None:
    forest = pixels_of(views, covers, "forest")
    assert forest.shape[1] > 50_000
    assert 0.55 < np.percentile(ndvi(forest), 5) < np.percentile(ndvi(forest), 95) < 0.95
    ramp = [np.median(forest[BANDS.index(band)]) for band in ("B04", "B05", "B06", "B07", "B08", "B8A")]
    assert ramp == sorted(ramp)
    assert ramp[-1] > 5 * ramp[0]
    assert np.median(forest[GREEN]) > np.median(forest[RED])
    assert np.median(forest[VH]) > 10 * np.median(pixels_of(views, covers, "water")[VH])
    assert (forest[VV] > forest[VH]).mean() > 0.95


def test_fields_differ_from_each_other_and_from_date_to_date(views: Views, covers: Covers) -> None:
    scene = scene_of("18HYB")
    first, second = (season.date for season in scene.seasons)
    place = block_of(scene, 1)[0]
    cover = covers[scene.tile, place.number]
    inside = cover.farmland > 0.98
    fields, index = np.unique(cover.vigour[inside], return_inverse=True)
    size = np.bincount(index)
    greenness = [
        np.bincount(index, ndvi(views[scene.tile, date, place.number])[inside]) / size
        for date in (first, second)
    ]
    large = size > 100
    assert 20 < large.sum() <= len(fields)
    assert greenness[0][large].std() > 0.1
    assert np.abs(greenness[0] - greenness[1])[large].max() > 0.3
    pixels = ndvi(views[scene.tile, first, place.number])[inside]
    assert (pixels - greenness[0][index]).std() < 0.5 * pixels.std()  # one field, one crop


def test_every_pixel_is_physically_possible(views: Views) -> None:
    for pixels in views.values():
        assert np.isfinite(pixels).all()
        reflectance, backscatter, height = pixels[:10], pixels[10:12], pixels[12]
        np.testing.assert_array_equal(reflectance, np.rint(reflectance))
        assert 1 <= reflectance.min() <= reflectance.max() <= 20_000
        assert 0 < backscatter.min() <= backscatter.max() < 10
        assert 0 <= height.min() <= height.max() < 3000
        assert np.ptp(height) > 50


def test_every_spectrum_has_all_bands_but_the_height() -> None:
    assert {len(spectrum) for spectrum in SPECTRA.values()} == {len(BANDS) - 1}


def test_eroded_land_drains_to_its_outlets() -> None:
    random = np.random.default_rng(5)
    outlets = np.zeros((48, 48), bool)
    outlets[:, 20] = True
    steepness = random.uniform(0.05, 0.15, outlets.shape).astype(np.float32)
    heights = erode(outlets, steepness, cell=80)
    assert (heights[outlets] == 0).all()
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
    lowest = np.min([np.roll(heights, step, (0, 1)) for step in steps], axis=0)
    assert (lowest < heights)[~outlets].all()
    # Far from the outlets it is higher, but valleys reach far: their slopes decline downstream.
    assert np.median(heights[:, 44]) > 2 * np.median(heights[:, 24])
    assert heights[:, 44].min() < 0.7 * heights[:, 44].max()


@pytest.mark.parametrize(
    ("tile", "count", "words"),
    [("31UDQ", 4, "27WXN, 18HYB"), ("27WXN", 2 * 441 + 1, "442"), ("27WXN", 0, "1 to 441")],
    ids=["no landscape for the tile", "more chips than the grid has", "no chips"],
)
def test_impossible_chips_are_refused(tmp_path: Path, tile: str, count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        write_chips_of_tile(tmp_path, tile, count)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 24, 440, 441])
def test_blocks_are_neighbours_within_the_grid(count: int) -> None:
    for scene in SCENES:
        places = block_of(scene, count)
        assert len(set(places)) == count
        assert all(0 <= place.row < GRID_SIDE and 0 <= place.column < GRID_SIDE for place in places)
        reached = {places[0]}
        for place in places:  # row by row, each beside or below one before it
            beside = {(place.row, place.column - 1), (place.row - 1, place.column)}
            assert place in reached or beside & {(other.row, other.column) for other in reached}
            reached.add(place)


def test_checkpoint_has_the_names_and_shapes_of_the_real_one(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "tiny.ckpt"
    assert write_untrained_checkpoint(path, model_size="tiny")
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    encoder = {name: tuple(tensor.shape) for name, tensor in state.items() if "decoder" not in name}
    assert encoder == {
        f"model.encoder.{name}": shape for name, shape in parameter_shapes(SIZES["tiny"]).items()
    }
    assert [name for name in state if name.startswith("model.decoder.")]
    assert content["hyper_parameters"]["model_size"] == "tiny"
    assert content["hyper_parameters"]["untrained"] is True
    for name, tensor in state.items():
        scale = tensor.std() * np.sqrt(np.prod(tensor.shape[1:]))
        assert tensor.ndim == 1 or float(scale) == pytest.approx(1, abs=0.1), name


def test_embeddings_of_the_untrained_checkpoint_tell_chips_apart(tmp_path: Path, views: Views) -> None:
    path = tmp_path / "tiny.ckpt"
    write_untrained_checkpoint(path, model_size="tiny")
    encoder = load_encoder(path, device="cpu", precision="fp32")
    assert encoder.untrained
    chosen = [key for key in views if key[0] == "27WXN"][:4]
    vectors = encoder.embed(
        np.stack([views[key] for key in chosen]),
        lonlat=np.array([[-18.5, 65.5]] * 4),
        dates=[date for _, date, _ in chosen],
        level="mean",
    )
    unit = np.asarray(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(4, 1)]
    assert cosines.max() < 0.9999
    assert np.ptp(cosines) > 0.005


def test_checkpoint_is_the_same_every_time_and_another_with_another_seed(tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("a.ckpt", "b.ckpt", "c.ckpt"))
    for path, seed in ((first, 0), (second, 0), (other, 1)):
        write_untrained_checkpoint(path, model_size="tiny", seed=seed)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()

    modified = first.stat().st_mtime_ns
    assert not write_untrained_checkpoint(first, model_size="tiny")
    assert first.stat().st_mtime_ns == modified
    assert write_untrained_checkpoint(first, model_size="tiny", seed=1)
    assert first.read_bytes() == other.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "b.ckpt", "c.ckpt"]


def test_a_checkpoint_of_other_origin_is_never_replaced(tmp_path: Path) -> None:
    trained = tmp_path / "trained.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {"model_size": "tiny"}}, trained)
    interrupted = tmp_path / "interrupted.ckpt"
    interrupted.write_bytes(trained.read_bytes()[:100])
    for path in (trained, interrupted):
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match="not made by the demo"):
            write_untrained_checkpoint(path, model_size="tiny")
        assert path.read_bytes() == before


def test_make_makes_all_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chips, checkpoint = tmp_path / "chips", tmp_path / "tiny.ckpt"
    call = ["make", "--chips", str(chips), "--checkpoint", str(checkpoint)]
    call += ["--chips-per-date", "1", "--model-size", "tiny"]
    assert main(call) == 0
    assert "UNTRAINED: made" in capsys.readouterr().out
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert sorted(str(path.relative_to(chips).parent) for path in made if path.suffix == ".tif") == [
        *("18HYB/2020-04-08", "18HYB/2020-11-14", "27WXN/2020-06-15", "27WXN/2020-09-08")
    ]
    assert main(call) == 0
    assert capsys.readouterr().out.count("all there") == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == made

    torch.save({}, checkpoint)
    assert main(call) == 0
    assert "kept and used as it is" in capsys.readouterr().out


@pytest.mark.parametrize("reader", ["geopandas", "pyarrow"])
def test_show_says_what_the_files_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str) -> None:
    if reader == "pyarrow":
        monkeypatch.setitem(sys.modules, "geopandas", None)  # as if it were not installed
    monkeypatch.chdir(tmp_path)
    folder = Path("embeddings")
    folder.mkdir()
    said = PROVENANCE | {"weights": "untrained: random numbers"}
    write_geoparquet(folder / "27WXN_20200615_20210703_v001.gpq", [rows(6)], (768,), said)
    lines = list(show(folder))
    text = "\n".join(lines)
    assert max(map(len, text.splitlines())) <= 100
    for words in (
        *(f"{reader}.", "6 rows, CRS", "dates 2020-06-15 to 2021-07-03", "UNTRAINED"),
        *("dagster dev", "CLAY_CHECKPOINT=s3://", "duckdb"),
    ):
        assert words in text
    assert ("OGC:CRS84" in text) == (reader == "geopandas")

    vectors = geoparquet_rows.vectors(6, (768,))
    cosines = [
        float(np.dot(vectors[0], v) / np.linalg.norm(vectors[0]) / np.linalg.norm(v)) for v in vectors[1:]
    ]
    nearest = ChipName.parse(geoparquet_rows.urls(6)[1 + int(np.argmax(cosines))])
    assert f"most like {nearest.number:04} of {nearest.date} ({max(cosines):.4f})" in text
    assert f"({min(cosines):.4f})" in text


def test_show_does_not_call_trained_weights_untrained(tmp_path: Path) -> None:
    path = tmp_path / "27WXN_20200615_20210703_v001.gpq"
    write_geoparquet(path, [rows(2)], (768,), PROVENANCE | {"weights": "as the checkpoint has them"})
    text = "\n".join(show(tmp_path))
    assert "UNTRAINED" not in text
    assert "as the checkpoint has them" in text


def test_show_without_files_says_how_to_get_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--output", str(tmp_path)]) == 1
    assert "make demo" in capsys.readouterr().err
