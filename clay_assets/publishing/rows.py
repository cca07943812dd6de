"""Requirements on a row of the published file, and the running union of the rows' footprints.

The writer refuses rows with these faults; the validation reports them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import shapely

from clay_assets.chips.antimeridian import cut_at_antimeridian, joined_bounds
from clay_assets.parquet import vectors
from clay_assets.publishing.schema import COLUMNS, Bounds

# PROJ lets longitudes overshoot 180 degrees by up to 1e-12 radians rather than flip their sign.
DEGREE_TOLERANCE = 1e-9


class RowsRefusedError(ValueError):
    """Rows must not be published; the message names the first of each kind by its `source_url`."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault in some rows."""

    what: str  # continues "row(s) with"
    rows: int
    first: str  # source_url of the first of them

    def __str__(self) -> str:
        return f"{self.rows} row(s) with {self.what}, the first of them {self.first}"


@dataclass
class Extent:
    """Bounds, types and orientation of the footprints so far."""

    counterclockwise: bool = True  # every exterior ring, and no holes
    types: set[str] = field(default_factory=set)  # GeoParquet's names of them
    boxes: list[np.ndarray] = field(default_factory=list)  # (N, 4) of each batch, a row for each part

    @property
    def bounds(self) -> Bounds | None:
        """Bounds of all rows, None before the first; west > east across the antimeridian."""
        return joined_bounds(np.concatenate(self.boxes)) if self.boxes else None

    def add(self, wkb: pa.Array) -> None:
        """Add a batch's `geometry` column, in which every value is a footprint's WKB."""
        geometries = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
        if not len(geometries):
            return
        self.types.update(geometry.geom_type for geometry in geometries)
        polygons = shapely.get_parts(geometries)
        self.boxes.append(shapely.bounds(polygons))
        rings = shapely.get_exterior_ring(polygons)
        if not shapely.is_ccw(rings).all() or shapely.get_num_interior_rings(polygons).any():
            self.counterclockwise = False


def row_faults(batch: pa.RecordBatch) -> Iterator[Fault]:
    """Yield the faults of the values of a batch with the four columns.

    Args:
        batch: `embeddings` as a fixed-size list or as a tensor of float32, the other three columns with their
            published types.
    """
    nulls = {name: batch[name].is_null().to_numpy(zero_copy_only=False) for name in COLUMNS}
    masks = {f"a null {name}": mask for name, mask in nulls.items()}
    finite = np.isfinite(vectors(batch["embeddings"])).all(axis=1)
    masks["an embedding that holds NaN, infinity or null"] = ~finite & ~nulls["embeddings"]
    masks["a geometry that is not the WKB of a 2-D polygon within ±180, ±90 degrees"] = (
        ~_are_footprints(batch["geometry"]) & ~nulls["geometry"]
    )
    for what, mask in masks.items():
        if mask.any():
            first = int(mask.argmax())
            url = batch["source_url"][first].as_py()
            place = f"row {first} of its batch, which has no source_url"
            yield Fault(what, int(mask.sum()), place if url is None else url)


def cut_footprints(wkb: pa.Array) -> pa.Array:
    """Cut the valid footprints that cross the antimeridian; all others keep their bytes."""
    whole = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
    cut = cut_at_antimeridian(whole)
    if all(before is after for before, after in zip(whole, cut, strict=True)):
        return wkb
    return pa.array(
        [
            old if before is after else shapely.to_wkb(after)
            for old, before, after in zip(wkb.to_pylist(), whole, cut, strict=True)
        ],
        wkb.type,
    )


def _are_footprints(wkb: pa.Array) -> np.ndarray:
    """Return which are polygons, or multipolygons that the antimeridian cuts."""
    geometries = parsed(wkb)
    # `bounds` ignores NaN: a polygon with one such corner would pass.
    corners, of = shapely.get_coordinates(geometries, return_index=True)
    finite = np.ones(len(geometries), dtype=bool)
    finite[of[~np.isfinite(corners).all(axis=1)]] = False
    xmin, ymin, xmax, ymax = shapely.bounds(geometries).T  # NaN if missing or empty: never within
    within = (
        (xmin >= -180 - DEGREE_TOLERANCE)
        & (xmax <= 180 + DEGREE_TOLERANCE)
        & (ymin >= -90 - DEGREE_TOLERANCE)
        & (ymax <= 90 + DEGREE_TOLERANCE)
    )
    # An SRID marks PostGIS's EWKB, which GeoParquet does not allow.
    standard = ~shapely.has_z(geometries) & (shapely.get_srid(geometries) <= 0)
    types = shapely.get_type_id(geometries)
    is_cut = (types == shapely.GeometryType.MULTIPOLYGON) & (xmin == -180) & (xmax == 180)
    is_footprint: np.ndarray = (types == shapely.GeometryType.POLYGON) | is_cut
    return is_footprint & finite & within & standard


def parsed(wkb: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return shapely geometries of a column of WKB, None if the bytes are not a geometry."""
    values = wkb.to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):  # GEOS compares NaN; the caller judges the result
        try:
            geometries: np.ndarray = shapely.from_wkb(values, on_invalid="ignore")
        except shapely.errors.GEOSException:  # an open ring raises in spite of `ignore`
            geometries = np.array([_parsed_alone(value) for value in values], dtype=object)
    return geometries


def _parsed_alone(value: bytes | None) -> shapely.Geometry | None:
    try:
        return shapely.from_wkb(value, on_invalid="ignore")
    except shapely.errors.GEOSException:
        return None
