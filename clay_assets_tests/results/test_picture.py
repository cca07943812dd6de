import base64
import datetime
import io
import re
from collections.abc import Sequence

import numpy as np
import pyproj
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image

from clay_assets.chips import read_chip
from clay_assets.results.picture import MAX_BYTES, chip_thumbnail, principal_colours, tile_picture
from clay_assets_tests.geotiffs import chip_bytes, chip_name
from clay_model import BANDS

DAY = datetime.date(2020, 6, 15)
RED, BLACK = bytes([255, 0, 0] * 256), bytes(768)


def chips_on_grid(places: Sequence[tuple[int, int]], epsg: int, west: float, north: float) -> list[bytes]:
    """Footprints of chips at (row, column) of a tile's grid, as pyproj reprojects their corners."""
    to_degrees = pyproj.Transformer.from_crs(epsg, "OGC:CRS84", always_xy=True)
    footprints = []
    for row, column in places:
        left, top = west + 5_120 * column, north - 5_120 * row
        x, y = [left + 5_120, left + 5_120, left, left], [top - 5_120, top, top, top - 5_120]
        ring = np.stack(to_degrees.transform(x, y), axis=1)
        footprints.append(shapely.to_wkb(shapely.Polygon(ring)))
    return footprints


def image_of(markdown: str) -> Image.Image:
    found = re.search(r"!\[[^]]*\]\(data:image/jpeg;base64,([A-Za-z0-9+/=]+)\)", markdown)
    assert found, markdown[:100]
    return Image.open(io.BytesIO(base64.b64decode(found[1])))


def lit_places(picture: Image.Image, size: int) -> set[tuple[int, int]]:
    """Rows and columns of the left half that hold a red thumbnail."""
    pixels = np.asarray(picture).astype(int)
    half = pixels[:, : (pixels.shape[1] - 8) // 2]
    centres = half[size // 2 :: size, size // 2 :: size]
    found = np.argwhere((centres[..., 0] > 200) & (centres[..., 1] < 80))
    return {(int(row), int(column)) for row, column in found}


def random_vectors(count: int, dim: int = 64) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)


@pytest.mark.parametrize(
    ("epsg", "west", "north"),
    [
        (32636, 600_000, 600_000),
        (32627, 699_960, 7_800_000),
        (32633, 499_980, 8_900_040),
        (32633, 700_000, 9_300_000),
        (32733, 600_000, 1_200_000),
        (32601, 300_000, 7_000_000),
        (32660, 700_000, 7_600_000),
    ],
    ids=[
        "equator", "27WXN's edge", "Svalbard", "83° north", "79° south", "east of 180°", "west of 180°"
    ],
)  # fmt: skip
def test_chips_have_the_same_arrangement_in_the_picture_as_on_the_ground(
    epsg: int, west: float, north: float
) -> None:
    shape = [(0, 0), (0, 20), (20, 0), (20, 20), (7, 3), (7, 4), (8, 3), (13, 19)]
    footprints = chips_on_grid(shape, epsg, west, north)

    markdown = tile_picture(footprints, [DAY] * 8, random_vectors(8), [RED] * 8)

    picture = image_of(markdown)
    assert picture.size == (2 * 21 * 16 + 8, 21 * 16)
    assert lit_places(picture, 16) == set(shape)


def test_chips_across_the_antimeridian_are_adjacent() -> None:
    to_utm = pyproj.Transformer.from_crs("OGC:CRS84", 32601, always_xy=True)
    west = float(to_utm.transform(180, 70)[0]) - 2.5 * 5_120
    footprints = chips_on_grid([(0, column) for column in range(5)], 32601, west, 7_770_000)
    assert max(shapely.bounds(shapely.from_wkb(footprints))[:, 2]) > 179
    assert min(shapely.bounds(shapely.from_wkb(footprints))[:, 0]) < -179

    picture = image_of(tile_picture(footprints, [DAY] * 5, random_vectors(5), [RED] * 5))

    assert picture.size == (2 * 5 * 64 + 8, 64)
    assert lit_places(picture, 64) == {(0, column) for column in range(5)}


def test_one_footprint_far_away_does_not_move_the_others() -> None:
    footprints = chips_on_grid([(0, 0), (0, 1), (1, 0), (2, 0)], 32633, 499_980, 5_500_000)
    for elsewhere in (shapely.box(-120, -40, -119.9, -39.9), shapely.box(15, 20, 15.1, 20.1)):
        stray = shapely.to_wkb(elsewhere)

        picture = image_of(
            tile_picture([stray, *footprints], [DAY] * 5, random_vectors(5), [BLACK, *[RED] * 4])
        )

        places = lit_places(picture, 16)
        top, left = min(row for row, _ in places), min(column for _, column in places)
        assert {(row - top, column - left) for row, column in places} == {(0, 0), (0, 1), (1, 0), (2, 0)}
        assert max(picture.size) <= 2 * 32 * 16 + 8


def test_the_latest_chip_of_a_location_is_visible() -> None:
    footprints = chips_on_grid([(0, 0), (0, 0)], 32633, 499_980, 5_500_000)
    later = DAY + datetime.timedelta(days=1)

    for days, thumbnails in (([DAY, later], [BLACK, RED]), ([later, DAY], [RED, BLACK])):
        picture = image_of(tile_picture(footprints, days, random_vectors(2), thumbnails))
        assert lit_places(picture, 128) == {(0, 0)}


def test_a_whole_tile_of_noise_stays_below_30_kilobytes() -> None:
    places = [(row, column) for row in range(22) for column in range(22)]
    noise = np.random.default_rng(0).integers(0, 256, (484, 768), dtype=np.uint8)
    thumbnails = [row.tobytes() for row in noise]

    markdown = tile_picture(
        chips_on_grid(places, 32627, 600_000, 7_800_000), [DAY] * 484, random_vectors(484), thumbnails
    )

    assert 5_000 < len(markdown) <= MAX_BYTES == 30_000
    assert image_of(markdown).size[1] >= 100


def test_the_same_chips_give_the_same_picture_in_any_order() -> None:
    places = [(row, column) for row in range(4) for column in range(4)]
    footprints, vectors = chips_on_grid(places, 32627, 600_000, 7_800_000), random_vectors(16)
    thumbnails = [bytes([index * 15]) * 768 for index in range(16)]
    order = np.random.default_rng(1).permutation(16)

    first = image_of(tile_picture(footprints, [DAY] * 16, vectors, thumbnails))
    again = image_of(tile_picture(footprints, [DAY] * 16, vectors, thumbnails))
    shuffled = image_of(
        tile_picture(
            [footprints[i] for i in order], [DAY] * 16, vectors[order], [thumbnails[i] for i in order]
        )
    )

    assert first.tobytes() == again.tobytes()
    assert np.abs(np.asarray(first).astype(int) - np.asarray(shuffled).astype(int)).max() <= 8


def test_a_tile_without_chips_has_no_picture() -> None:
    assert tile_picture([], [], np.empty((0, 4), dtype=np.float32), []) == ""


@pytest.mark.parametrize("shape", [(40, 8), (8, 40)], ids=["more chips than numbers", "fewer"])
def test_colours_are_the_first_three_principal_components(shape: tuple[int, int]) -> None:
    vectors = np.random.default_rng(2).standard_normal(shape) * np.linspace(5, 1, shape[1])
    centred = vectors - vectors.mean(axis=0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)

    colours = principal_colours(vectors.astype(np.float32)).astype(float)

    for band, component in enumerate((left * scale)[:, :3].T):
        clipped = np.clip(component, *np.percentile(component, (2, 98)))
        assert abs(np.corrcoef(clipped, colours[:, band])[0, 1]) > 0.9999
    assert colours.min() >= 30
    assert colours.max() <= 245


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_chips_are_grey(count: int) -> None:
    assert (principal_colours(random_vectors(count)) == 128).all()


def test_chips_with_equal_vectors_have_equal_colours() -> None:
    colours = principal_colours(np.ones((5, 16), dtype=np.float32))

    assert (colours == colours[0]).all()


@pytest.mark.parametrize("layout", ["bucket layout", "bands apart in strips"])
def test_a_thumbnail_shows_red_green_and_blue_at_their_pixels(layout: str) -> None:
    pixels = np.zeros((13, 512, 512), dtype=np.float32)
    pixels[BANDS.index("B04"), :256, :256] = 3_000
    pixels[BANDS.index("B03"), :256, 256:] = 750
    pixels[BANDS.index("B02"), 256:] = 60_000
    chip = read_chip(chip_bytes(pixels, layout=layout), chip_name())

    seen = np.frombuffer(chip_thumbnail(chip.pixels), np.uint8).reshape(16, 16, 3)

    assert (seen[:8, :8] == [255, 0, 0]).all()
    assert (seen[:8, 8:] == [0, 127, 0]).all()  # a quarter of white's reflectance, square root
    assert (seen[8:] == [0, 0, 255]).all()
