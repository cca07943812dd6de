"""What a row of the published file must be, and the running union of the rows' footprints.

The writer refuses what is found here, the validation reports it: one set of rules serves both.
Facts about the file as a whole belong in `schema.py` and `validation.py`.
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
    """Rows that must not be published; the message names the first of each kind by its `source_url`."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with some rows of a batch."""

    what: str  # reads on from "row(s) with"
    rows: int  # how many have it
    first: str  # source_url of the first of them

    def __str__(self) -> str:
        return f"{self.rows} row(s) with {self.what}, the first of them {self.first}"


@dataclass
class Extent:
    """What the footprints seen so far have in common."""

    counterclockwise: bool = True  # every exterior ring so far, and no holes
    types: set[str] = field(default_factory=set)  # GeoParquet's names of the geometries' types
    boxes: list[np.ndarray] = field(default_factory=list)  # of each batch (N, 4), a row for each part

    @property
    def bounds(self) -> Bounds | None:
        """Of all rows, None before the first; west > east where they lie across the antimeridian."""
        return joined_bounds(np.concatenate(self.boxes)) if self.boxes else None

    def add(self, wkb: pa.Array) -> None:
        """Take in a batch's `geometry` column; every value must be a footprint's WKB."""
        geometries = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
        if not len(geometries):
            return
        self.types.update(geometry.geom_type for geometry in geometries)
        polygons = shapely.get_parts(geometries)
        self.boxes.append(shapely.bounds(polygons))
        rings = shapely.get_exterior_ring(polygons)
        holes = shapely.get_num_interior_rings(polygons)
        self.counterclockwise = self.counterclockwise and bool(
            shapely.is_ccw(rings).all() and not holes.any()
        )


def row_faults(batch: pa.RecordBatch) -> Iterator[Fault]:
    """Yield what is wrong with the values of a batch that has the four columns.

    Args:
        batch: `embeddings` as a fixed-size list or as a tensor of float32, the other three columns with their
            published types.
    """
    for column in COLUMNS:
        yield from _fault(batch, _nulls(batch[column]), f"a null {column}")
    embeddings = batch["embeddings"]
    unfinite = ~np.isfinite(vectors(embeddings)).all(axis=1) & ~_nulls(embeddings)
    yield from _fault(batch, unfinite, "an embedding that holds NaN, infinity or null")
    geometry = batch["geometry"]
    no_polygon = ~_are_footprints(geometry) & ~_nulls(geometry)
    yield from _fault(
        batch, no_polygon, "a geometry that is not the WKB of a 2-D polygon within ±180, ±90 degrees"
    )


def cut_footprints(wkb: pa.Array) -> pa.Array:
    """Cut those of a `geometry` column that cross the antimeridian; all others keep their bytes.

    Args:
        wkb: of footprints, as `row_faults` finds nothing wrong with.
    """
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
    """Whether each is a polygon, or a multipolygon that the antimeridian cuts."""
    geometries = parsed(wkb)
    # `bounds` passes over NaN, so a polygon with one such corner would look well placed.
    corners, of = shapely.get_coordinates(geometries, return_index=True)
    finite = np.ones(len(geometries), dtype=bool)
    finite[of[~np.isfinite(corners).all(axis=1)]] = False
    xmin, ymin, xmax, ymax = shapely.bounds(geometries).T  # NaN, so never within, where missing or empty
    within = (
        (xmin >= -180 - DEGREE_TOLERANCE)
        & (xmax <= 180 + DEGREE_TOLERANCE)
        & (ymin >= -90 - DEGREE_TOLERANCE)
        & (ymax <= 90 + DEGREE_TOLERANCE)
    )
    flat = ~shapely.has_z(geometries)
    # An SRID marks PostGIS's EWKB, which GeoParquet does not allow.
    standard = shapely.get_srid(geometries) <= 0
    types = shapely.get_type_id(geometries)
    is_cut = (types == shapely.GeometryType.MULTIPOLYGON) & (xmin == -180) & (xmax == 180)
    is_footprint: np.ndarray = (types == shapely.GeometryType.POLYGON) | is_cut
    return is_footprint & finite & within & flat & standard


def parsed(wkb: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return shapely geometries of a column of WKB, None where the bytes are not readable as one."""
    values = wkb.to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):  # GEOS compares NaN; what comes of it is judged afterwards
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


def _nulls(column: pa.Array) -> np.ndarray:
    mask: np.ndarray = column.is_null().to_numpy(zero_copy_only=False)
    return mask


def _fault(batch: pa.RecordBatch, mask: np.ndarray, what: str) -> Iterator[Fault]:
    if mask.any():
        at = int(mask.argmax())
        url = batch["source_url"][at].as_py()
        yield Fault(
            what,
            int(mask.sum()),
            url if url is not None else f"row {at} of its batch, which has no source_url",
        )
