import warnings

import mgrs
import numpy as np
import pytest
import shapely
from pyproj import Transformer

from clay_assets.tiles.bounds import BANDS, COLUMNS, ROWS, overhang, tile_bounds, utm_zone


def test_bounds_agree_with_the_mgrs_library_on_every_square_of_every_kind_of_zone() -> None:
    oracle = mgrs.MGRS()
    squares = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # mgrs warns of squares in another latitude band
        for zone in (1, 2, 3, 4, 5, 6, 31, 32, 33, 60):  # letters repeat after six; 31 to 33 are of odd shape
            codes = (f"{zone:02}{b}{c}{r}" for b in BANDS for c in COLUMNS[(zone - 1) % 3] for r in ROWS)
            for code in codes:
                try:
                    _, hemisphere, easting, northing = oracle.MGRSToUTM(code)  # of the centre
                except (RuntimeWarning, mgrs.core.MGRSError):
                    continue
                corner = (easting - 50_000, northing + 50_000)
                west, _, _, north = tile_bounds(code)
                assert (west, north) == corner, code
                assert utm_zone(code).utm_zone == f"{zone}{hemisphere}"
                squares += 1
    assert squares > 15_000


def test_the_published_tile_of_the_clay_team_is_inside_its_bounds() -> None:
    # Corners of the union of its 417 footprints, 03WVN_20220610_20220610_v001.gpq, in EPSG:32603.
    west, south, east, north = 399_955, 7_192_505, 507_475, 7_300_025
    assert tile_bounds("03WVN") == (400_000, 7_190_200, 509_800, 7_300_000)
    to_degrees = Transformer.from_crs("EPSG:32603", "OGC:CRS84", always_xy=True)
    corners = [
        to_degrees.transform(x, y) for x, y in ((west, south), (east, south), (east, north), (west, north))
    ]
    reach = overhang("03WVN", np.array([shapely.Polygon(corners)]))
    assert reach == pytest.approx([45], abs=1)


@pytest.mark.parametrize("longitude", [-179.98, 179.98])
def test_a_footprint_across_the_antimeridian_is_inside_a_tile_on_either_side(longitude: float) -> None:
    across = shapely.Polygon([(-179.96, 66), (-179.96, 66.05), (179.96, 66.05), (179.96, 66)])
    tile = mgrs.MGRS().toMGRS(66.02, longitude, MGRSPrecision=0)
    assert tile[:2] == ("01" if longitude < 0 else "60")
    assert overhang(tile, np.array([across])).tolist() == [0]
