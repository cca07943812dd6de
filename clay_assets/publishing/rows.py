"""Requirements on a row of the published file, and the running union of the rows' footprints.

The writer refuses rows with these faults; the validation reports them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import shapely

from clay_assets.chips.place import cut_at_antimeridian, joined_bounds
from clay_assets.parquet import vectors
from clay_assets.publishing.schema import COLUMNS, Bounds

# PROJ lets longitudes overshoot 180 degrees by up to 1e-12 radians rather than flip their sign.
DEGREE_TOLERANCE = 1e-9


class RowsRefusedError(ValueError):
    """Rows must not be published; the message names the first of each kind by its `source_url`."""


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
        if not len(wkb):
            return
        geometries = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
        self.types.update(geometry.geom_type for geometry in geometries)
        polygons = shapely.get_parts(geometries)
        self.boxes.append(shapely.bounds(polygons))
        rings = shapely.get_exterior_ring(polygons)
        if not shapely.is_ccw(rings).all() or shapely.get_num_interior_rings(polygons).any():
            self.counterclockwise = False


def row_faults(batch: pa.RecordBatch) -> dict[str, list[str]]:
    """Return the `source_url` of the rows with each kind of fault of a batch's values.

    The columns have their published types; `embeddings` may also be a fixed-size list of float32.
    """
    nulls = {name: batch[name].is_null().to_numpy(zero_copy_only=False) for name in COLUMNS}
    masks = {f"a null {name}": mask for name, mask in nulls.items()}
    finite = np.isfinite(vectors(batch["embeddings"])).all(axis=1)
    masks["an embedding that holds NaN, infinity or null"] = ~finite & ~nulls["embeddings"]
    masks["a geometry that is not the WKB of a 2-D polygon within ±180, ±90 degrees"] = (
        ~_are_footprints(batch["geometry"]) & ~nulls["geometry"]
    )
    rows = [
        url or f"row {index} of its batch, which has no source_url"
        for index, url in enumerate(batch["source_url"].to_pylist())
    ]
    return {what: [rows[i] for i in np.flatnonzero(mask)] for what, mask in masks.items() if mask.any()}


def described(faults: Mapping[str, Sequence[str]]) -> list[str]:
    """Describe each kind of fault by the number of its rows and the first of them."""
    return [f"{len(rows)} row(s) with {what}, the first of them {rows[0]}" for what, rows in faults.items()]


def cut_footprints(wkb: pa.Array) -> pa.Array:
    """Cut the valid footprints that cross the antimeridian; all others keep their bytes."""
    whole = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
    values = wkb.to_pylist()
    for index, cut in enumerate(cut_at_antimeridian(whole)):
        if cut is not whole[index]:
            values[index] = shapely.to_wkb(cut)
    return pa.array(values, wkb.type)


def _are_footprints(wkb: pa.Array) -> np.ndarray:
    """Return which are polygons, or multipolygons that the antimeridian cuts."""
    geometries = parsed(wkb)
    types = shapely.get_type_id(geometries)
    west, _, east, _ = shapely.bounds(geometries).T
    is_cut = (types == shapely.GeometryType.MULTIPOLYGON) & (west == -180) & (east == 180)
    is_footprint: np.ndarray = (types == shapely.GeometryType.POLYGON) | is_cut
    # An SRID marks PostGIS's EWKB, which GeoParquet does not allow.
    is_footprint &= ~shapely.has_z(geometries) & (shapely.get_srid(geometries) <= 0)
    is_footprint &= ~shapely.is_empty(geometries)
    corners, owners = shapely.get_coordinates(geometries, return_index=True)
    within = np.abs(corners) <= np.array([180, 90]) + DEGREE_TOLERANCE  # False for NaN
    is_footprint[owners[~within.all(axis=1)]] = False
    return is_footprint


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
