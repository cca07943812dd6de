"""Chips of UTM zones 1 and 60 across 180 degrees: centres, cut footprints, bounds."""

import numpy as np
import pyproj
import pytest
import shapely

from clay_assets.chips import read_chip
from clay_assets.chips.place import bounds_of, cut_at_antimeridian
from clay_assets.tiles.bounds import overhang
from clay_assets_tests.geotiffs import chip_bytes, chip_name

SIDE = 5120

CROSSING = {
    "01KAA": ("EPSG:32701", (178_500, 8_098_040)),
    "60KZF": ("EPSG:32760", (816_500, 8_098_040)),
    "01WCR": ("EPSG:32601", (370_000, 7_504_000)),
    "60WXA": ("EPSG:32660", (625_000, 7_504_000)),
}
"""CRS and upper left corner of a chip that the antimeridian cuts, by tile."""


def footprint(crs: str, origin: tuple[float, float], tile: str) -> shapely.Geometry:
    chip = read_chip(chip_bytes(crs=crs, origin=origin), chip_name(tile=tile))
    return shapely.from_wkb(chip.windows[0].footprint)


def unwrapped(crs: str, origin: tuple[float, float]) -> shapely.Polygon:
    """The oracle: the chip's box by pyproj, longitudes from 0 to 360."""
    west, north = origin
    to_degrees = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    box = shapely.box(west, north - SIDE, west + SIDE, north)
    degrees = shapely.transform(box, to_degrees.transform, interleaved=False)
    return shapely.transform(degrees, lambda lonlat: lonlat + (lonlat < [0, -90]) * 360)


@pytest.mark.parametrize("tile", CROSSING)
def test_the_centre_of_a_chip_across_the_antimeridian_is_in_it(tile: str) -> None:
    crs, (west, north) = CROSSING[tile]
    chip = read_chip(chip_bytes(crs=crs, origin=(west, north)), chip_name(tile=tile))
    to_degrees = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    assert chip.windows[0].lonlat == pytest.approx(
        to_degrees.transform(west + SIDE / 2, north - SIDE / 2), abs=1e-9
    )
    assert abs(chip.windows[0].lonlat[0]) > 179.9


@pytest.mark.parametrize("tile", CROSSING)
def test_a_footprint_across_the_antimeridian_is_cut_into_its_two_sides(tile: str) -> None:
    crs, origin = CROSSING[tile]
    whole = footprint(crs, origin, tile)
    assert np.ptp(shapely.bounds(whole)[::2]) > 359  # around the Earth
    (cut,) = cut_at_antimeridian(np.array([whole]))
    west, east = cut.geoms
    assert (west.bounds[2], east.bounds[0]) == (180, -180)
    assert shapely.is_ccw([west.exterior, east.exterior]).all()
    together = shapely.union(west, shapely.transform(east, lambda degrees: degrees + np.array([360, 0])))
    expected = unwrapped(crs, origin)
    assert together.symmetric_difference(expected).area < 1e-9 * expected.area
    assert overhang(tile, np.array([cut])) == pytest.approx(overhang(tile, np.array([whole])), abs=1e-3)


def test_footprints_elsewhere_or_touching_the_antimeridian_stay_one_polygon() -> None:
    elsewhere = footprint("EPSG:32627", (600_000, 7_700_040), "27WXN")
    touching = shapely.Polygon([(-180, 60), (-180, 61), (179.9, 61), (179.9, 60)])
    behind = shapely.Polygon([(-179.9, 60), (-179.9, 61), (180, 61), (180, 60)])
    around_the_pole = shapely.Polygon([(45, 89.9), (135, 89.9), (-135, 89.9), (-45, 89.9)])
    cut = cut_at_antimeridian(np.array([elsewhere, touching, behind, around_the_pole]))
    assert cut[0] is elsewhere
    assert (cut[1].geom_type, cut[1].bounds) == ("Polygon", (179.9, 60, 180, 61))
    assert (cut[2].geom_type, cut[2].bounds) == ("Polygon", (-180, 60, -179.9, 61))
    assert cut[3] is around_the_pole


@pytest.mark.parametrize(
    ("boxes", "bounds"),
    [
        pytest.param([(10, 0, 11, 1), (12, 2, 13, 3)], (10, 0, 13, 3), id="on one side"),
        pytest.param([(-1, 0, 1, 1), (2, 2, 3, 3)], (-1, 0, 3, 3), id="across Greenwich"),
        pytest.param([(179, 0, 180, 1), (-180, 2, -178, 3)], (179, 0, -178, 3), id="across the antimeridian"),
        pytest.param([(-170, 0, -1, 1), (-2, 2, 170, 3)], (-170, 0, 170, 3), id="all around"),
    ],
)
def test_bounds_across_the_antimeridian_have_west_greater_than_east(
    boxes: list[tuple[float, float, float, float]], bounds: tuple[float, float, float, float]
) -> None:
    assert bounds_of(np.array([shapely.box(*box) for box in boxes])) == bounds


def test_bounds_of_crossing_chips_are_as_narrow_as_the_chips() -> None:
    crossing = [footprint(*CROSSING[tile], tile) for tile in ("01WCR", "60WXA")]
    west, south, east, north = bounds_of(np.array(crossing))
    assert 179.5 < west < 180
    assert -180 < east < -179.5
    assert north - south < 0.2
