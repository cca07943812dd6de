"""Reading chips: pixels compared with rasterio's, places with pyproj's and the published code's."""

import dataclasses
import datetime
import math
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from rasterio.io import MemoryFile

from clay_assets.chips import Chip, ChipName, ChipRejected, read_chip
from clay_assets.chips.geotiff import read_header
from clay_assets_tests.geotiffs import (
    BAD_CHIPS,
    LAYOUTS,
    SWAPPED,
    chip_bytes,
    chip_name,
    chip_pixels,
    entry_offset,
    good_chip,
    read_with_rasterio,
)
from clay_model.spec import BANDS

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@dataclasses.dataclass(frozen=True)
class GoldenPlace:
    """A chip's place, as the published code computed it.

    Attributes:
        latlon: (sin(lat), atan2(cos(lon), sin(lon))) of the centre, the network's input.
        footprint: WKT of the bounds in OGC:CRS84.
    """

    name: str
    crs: str
    origin: tuple[float, float]
    latlon: tuple[float, float]
    footprint: str


GOLDEN_PLACES = [
    GoldenPlace(
        "claytile_27WXN_20200615_v02_0001.tif",
        "EPSG:32627",
        (600_000, 7_700_040),
        (0.9358572363853455, 1.8917869329452515),
        "POLYGON ((-18.329221854274312 69.34316153367622, -18.323538673407473 69.38902700672006,"
        " -18.453733963568684 69.39098507295552, -18.459141433281914 69.34511486629152,"
        " -18.329221854274312 69.34316153367622))",
    ),
    GoldenPlace(
        "claytile_27WXN_20200229_v02_0200.tif",
        "EPSG:32627",
        (645_080, 7_648_840),
        (0.9328774213790894, 1.8731797933578491),
        "POLYGON ((-17.265618862527848 68.86359463456131, -17.25787248231595 68.90941496818189,"
        " -17.38511169769662 68.91216365149359, -17.392596106555903 68.86633680320655,"
        " -17.265618862527848 68.86359463456131))",
    ),
    GoldenPlace(
        "claytile_60HTE_20171231_v02_0007.tif",
        "EPSG:32760",
        (209_760, 5_900_020),
        (-0.6021637916564941, -1.4619957208633423),
        "POLYGON ((173.79395298970448 -37.04884525147852, 173.7958910058868 -37.002763962874134,"
        " 173.73843777759532 -37.00119748780455, 173.7364651597094 -37.04727616994733,"
        " 173.79395298970448 -37.04884525147852))",
    ),
    GoldenPlace(
        "claytile_33MVV_20230101_v02_0120.tif",
        "EPSG:32733",
        (499_980, 9_990_220),
        (-0.0019485513912513852, 1.308598518371582),
        "POLYGON ((15.045832533540725 -0.134804928151963, 15.04583246182144 -0.0884826987402969,"
        " 14.99982026483629 -0.0884827272399333, 14.999820264555035 -0.1348049715716977,"
        " 15.045832533540725 -0.134804928151963))",
    ),
]


def corners(polygon: shapely.Geometry) -> np.ndarray:
    return np.asarray(shapely.get_coordinates(polygon))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_are_bit_for_bit_what_rasterio_reads_in_every_layout(layout: str) -> None:
    data = chip_bytes(layout=layout)
    chip = read_chip(data, chip_name())
    assert chip.pixels.shape == (13, 512, 512)
    assert chip.pixels.dtype == np.float32
    assert np.array_equal(chip.pixels.view(np.uint32), read_with_rasterio(data).view(np.uint32))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64"])
@pytest.mark.parametrize("options", [{}, {"predictor": 2}, {"predictor": 2, "endianness": "big"}], ids=str)
def test_small_integers_keep_their_type_and_larger_ones_become_equal_float32(
    dtype: str, options: dict[str, Any]
) -> None:
    pixels = chip_pixels(dtype)
    pixels[0, 0, :2] = max(np.iinfo(dtype).min, -1_000), min(np.iinfo(dtype).max, 65_535)
    chip = read_chip(chip_bytes(pixels, **options), chip_name())
    assert chip.pixels.dtype == (dtype if dtype in ("uint8", "int16", "uint16") else "float32")
    assert np.array_equal(chip.pixels, pixels.astype(np.float32))


@pytest.mark.parametrize("predictor", [2, 3])
@pytest.mark.parametrize("endianness", ["little", "big"])
@pytest.mark.parametrize("layout", ["bucket layout", "overhanging tiles", "bands apart in strips"])
def test_predictors_of_float32_are_undone(layout: str, endianness: str, predictor: int) -> None:
    noise = np.random.default_rng(0).standard_normal((13, 512, 512), dtype=np.float32)
    noise[10:12] = abs(noise[10:12])  # a power far below 0 is refused
    data = chip_bytes(noise, layout=layout, predictor=predictor, endianness=endianness, zlevel=1)
    assert np.array_equal(read_chip(data, chip_name()).pixels, noise)


def test_omitted_blocks_are_zero() -> None:
    pixels = chip_pixels()
    pixels[:, 100:200] = 0
    data = chip_bytes(pixels, layout="sparse")
    assert len(data) < len(chip_bytes(pixels))
    assert np.array_equal(read_chip(data, chip_name()).pixels, pixels)


def test_samples_of_fewer_bits_than_their_type_are_read() -> None:
    pixels = chip_pixels("uint16")
    assert np.array_equal(read_chip(chip_bytes(pixels, nbits=12), chip_name()).pixels, pixels)


def test_interleaved_pixels_are_not_copied() -> None:
    chip = read_chip(good_chip(), chip_name())
    assert chip.pixels.transpose(1, 2, 0).flags.c_contiguous


def test_bands_without_names_are_taken_by_position() -> None:
    assert np.array_equal(read_chip(chip_bytes(), chip_name()).pixels, chip_pixels())


@pytest.mark.parametrize("layout", ["bucket layout", "bands apart in strips"])
def test_named_bands_are_reordered(layout: str) -> None:
    chip = read_chip(chip_bytes(bands=SWAPPED, layout=layout), chip_name())
    expected = chip_pixels()[[SWAPPED.index(band) for band in BANDS]]
    assert not np.array_equal(expected, chip_pixels())
    assert np.array_equal(chip.pixels, expected)


def test_case_and_spaces_of_band_names_are_ignored() -> None:
    names = tuple(f" {name.swapcase()}" for name in SWAPPED)
    by_case = read_chip(chip_bytes(bands=names), chip_name())
    assert np.array_equal(by_case.pixels, read_chip(chip_bytes(bands=SWAPPED), chip_name()).pixels)


def test_a_nodata_value_alone_changes_nothing() -> None:
    assert np.array_equal(read_chip(chip_bytes(nodata=0), chip_name()).pixels, chip_pixels())
    assert np.array_equal(read_chip(chip_bytes(nodata=math.nan), chip_name()).pixels, chip_pixels())


@pytest.mark.parametrize("place", GOLDEN_PLACES, ids=lambda place: place.name)
def test_centre_and_footprint_match_the_published_code(place: GoldenPlace) -> None:
    date = ChipName.parse(place.name).date
    chip = read_chip(chip_bytes(crs=place.crs, origin=place.origin, date=str(date)), place.name)
    assert chip.date == date
    longitude, latitude = map(math.radians, chip.windows[0].lonlat)
    fed = (math.sin(latitude), math.atan2(math.cos(longitude), math.sin(longitude)))
    assert fed == pytest.approx(place.latlon, abs=1e-6)
    footprint, expected = shapely.from_wkb(chip.windows[0].footprint), shapely.from_wkt(place.footprint)
    assert np.allclose(corners(footprint), corners(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("crs", "origin"),
    [
        pytest.param("EPSG:3857", (-2_000_000.5, 6_000_000.25), id="another projection"),
        pytest.param("EPSG:5514", (-700_000, -1_000_000), id="axes that point south and west"),
        pytest.param("ESRI:54009", (1_000_000, 2_000_000), id="no EPSG code"),
    ],
)
def test_bounds_in_any_reference_system_are_reprojected_corner_by_corner(
    crs: str, origin: tuple[float, float]
) -> None:
    size = 5120
    chip = read_chip(chip_bytes(crs=crs, origin=origin), chip_name())
    west, north = origin
    to_crs84 = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    expected = shapely.transform(
        shapely.box(west, north - size, west + size, north), to_crs84.transform, interleaved=False
    )
    assert np.allclose(
        corners(shapely.from_wkb(chip.windows[0].footprint)), corners(expected), rtol=0, atol=1e-7
    )
    centre = to_crs84.transform(west + size / 2, north - size / 2)
    assert chip.windows[0].lonlat == pytest.approx(centre, abs=1e-7)


@pytest.mark.parametrize("kind", BAD_CHIPS)
def test_a_bad_chip_is_refused_with_its_reason(kind: str) -> None:
    bad = BAD_CHIPS[kind]
    with pytest.raises(ChipRejected, match=bad.phrase) as refusal:
        read_chip(bad.make(), chip_name())
    assert refusal.value.reason == bad.reason
    assert "\n" not in str(refusal.value)


def test_all_problems_of_a_header_are_reported_at_once() -> None:
    data = chip_bytes(chip_pixels("float64", size=256, bands=2), crs=None, date="2021-06-15")
    with pytest.raises(ChipRejected) as refusal:
        read_chip(data, chip_name())
    for phrase in ("256 x 256", "2 bands", "float64", "'2021-06-15'", "no coordinate reference system"):
        assert phrase in str(refusal.value)


def test_a_chip_name_is_parsed() -> None:
    name = ChipName.parse("s3://clay-tiles-02/02/27WXN/2020-06-15/claytile_27WXN_20200615_v02_0120.tif")
    assert name == ChipName("27WXN", datetime.date(2020, 6, 15), "02", 120)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("claytile_27WXN_20200615_v02_0001.tiff", id="another suffix"),
        pytest.param("claytile_27WXN_20200615_v02.tif", id="no number"),
        pytest.param("claytile_61WXN_20200615_v02_0001.tif", id="no such UTM zone"),
        pytest.param("claytile_27WXN_20200230_v02_0001.tif", id="no such day"),
        pytest.param("claytile_27WXN_20200615_v02_0001.tif\n", id="a line break"),
        pytest.param("claytile_27WXN_20200615_v02_٠٠٠١.tif", id="digits, but not ASCII"),
        pytest.param("B02.tif", id="another file"),
    ],
)
def test_a_file_not_named_like_a_chip_is_refused(name: str) -> None:
    with pytest.raises(ChipRejected, match=r"is named .*, expected") as refusal:
        read_chip(good_chip(), name)
    assert refusal.value.reason == "name"


def test_a_chip_named_for_another_tile_is_refused() -> None:
    url = "s3://clay-tiles-02/02/27WXN/2020-06-15/" + chip_name(tile="18HYB")
    assert read_chip(good_chip(), url).date == datetime.date(2020, 6, 15)
    with pytest.raises(ChipRejected, match=r"'claytile_18HYB_.*', expected a chip of tile 27WXN") as refusal:
        read_chip(good_chip(), url, tile="27WXN")
    assert refusal.value.reason == "name"
    assert read_chip(good_chip(), chip_name(), tile="27WXN").date == datetime.date(2020, 6, 15)


def test_the_date_tag_must_match_the_file_name() -> None:
    with pytest.raises(ChipRejected, match="'2020-06-15' as its tag `date`, expected 2020-06-16") as refusal:
        read_chip(good_chip(), chip_name(date="2020-06-16"))
    assert refusal.value.reason == "date"


@pytest.mark.parametrize("meaning", ["Area", "Point"])
@pytest.mark.parametrize("layout", ["bucket layout", "tiles with a predictor", "big-endian", "BigTIFF"])
def test_headers_of_similar_files_match_rasterio(layout: str, meaning: str) -> None:
    """The reader opens only the first of them with GDAL."""
    size = 128
    for x, y, pixel, crs in [
        (600_000, 7_700_040, 10, 32627),
        (601_280.5, 7_698_760.25, 10, 32627),
        (601_280.5, 7_698_760.25, 20, 32627),
        (601_280.5, 7_698_760.25, 20, 32628),
        (-1e-300, 0, 20, 32628),
    ]:
        data = chip_bytes(
            chip_pixels(size=size),
            layout=layout,
            origin=(x, y),
            pixel=pixel,
            crs=f"EPSG:{crs}",
            meaning=meaning,
        )
        header = read_header(data)
        with MemoryFile(data) as file, file.open() as dataset:
            assert header.transform == dataset.transform
            assert dataset.tags()["AREA_OR_POINT"] == meaning
            assert header.crs == dataset.crs.to_wkt()
            assert (header.width, header.block) == (size, dataset.block_shapes[0])


@pytest.mark.parametrize("missing", ["tag", "value"])
def test_a_tie_point_without_a_pixel_size_gives_no_location_regardless_of_earlier_chips(missing: str) -> None:
    for origin in [(0, 0), (600_000, 7_700_040)]:
        data = chip_bytes(chip_pixels(size=128), origin=origin)
        if missing == "tag":
            entry = entry_offset(data, 33550)
            data = data[:entry] + struct.pack("<H", 33549) + data[entry + 2 :]
        else:
            (place,) = struct.unpack_from("<I", data, entry_offset(data, 33550) + 8)
            data = data[:place] + bytes(24) + data[place + 24 :]
        assert read_header(data).transform.is_identity


def test_concurrent_reads_give_the_same_chips() -> None:
    files = [chip_bytes(layout=layout) for layout in LAYOUTS]
    expected = [read_chip(data, chip_name()) for data in files]

    def read(index: int) -> Chip:
        return read_chip(files[index % len(files)], chip_name())

    with ThreadPoolExecutor(8) as pool:
        for index, chip in enumerate(pool.map(read, range(2 * len(files)))):
            reference = expected[index % len(files)]
            assert np.array_equal(chip.pixels, reference.pixels)
            assert chip.windows == reference.windows
