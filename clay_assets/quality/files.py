"""Reads a tile's published file back and checks that it is valid and its footprints are in its tile."""

import io
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from clay_assets.parquet import DAMAGE, DamagedFileError
from clay_assets.publishing import read_provenance, validate
from clay_assets.publishing.rows import parsed
from clay_assets.quality.report import Report
from clay_assets.storage import Store, StoredObject
from clay_assets.tiles.bounds import overhang

VALID, INSIDE = "file_readable_and_valid", "geometry_inside_the_tile"
ONE_MODEL = "version_holds_one_model"

SMALL = 64 * 2**20
"""Maximum size in bytes of a file that is fetched whole; larger ones are streamed, one at a time."""

MAX_OVERHANG = 5_120.0
"""Metres that a footprint may extend beyond its tile: the width of a chip, so that a chip passes if any of it
is inside. A wrong zone, swapped coordinates or another tile's chip are off by tens of kilometres."""

_one_large_file = threading.Semaphore()


def examine_file(output: Store, tile: str, files: Sequence[StoredObject]) -> Report:
    """Report on the published file of a tile and version; on the last one if there are several.

    Raises:
        StorageError: If the file cannot be fetched.
    """
    if not files:
        return Report(tile, missing="has no published file")
    file = files[-1]
    faults = [f"{len(files)} files of one version: expected one"] if len(files) > 1 else []
    if file.size <= SMALL:
        return _examine(tile, file, io.BytesIO(output.read(file)), faults)
    with _one_large_file, closing(output.open(file)) as source:
        return _examine(tile, file, source, faults)


def _examine(tile: str, file: StoredObject, source: BinaryIO, faults: list[str]) -> Report:
    faults = faults + validate(source, name=PurePosixPath(file.url).name)
    footprints = _footprints(source)
    outside, where = _location(tile, footprints)
    found = {VALID: " ".join(faults), INSIDE: outside}
    return Report(
        tile,
        examined=file.etag,
        faults={check: fault for check, fault in found.items() if fault},
        numbers={
            VALID: {"rows": len(footprints), "bytes": file.size},
            INSIDE: {"footprints": len(footprints), **where},
            ONE_MODEL: _model(source),
        },
    )


def _footprints(source: BinaryIO) -> NDArray[np.object_]:
    """Return the readable geometries of a file; `validate` reports the others."""
    source.seek(0)
    try:
        column = pq.read_table(source, columns=["geometry"])["geometry"]
    except (*DAMAGE, KeyError):
        return np.empty(0, dtype=object)
    if not pa.types.is_binary(column.type):
        return np.empty(0, dtype=object)
    geometries: NDArray[np.object_] = parsed(column)
    return geometries[~shapely.is_missing(geometries)]


def _location(tile: str, footprints: NDArray[np.object_]) -> tuple[str, dict[str, Any]]:
    """Return the fault of the footprints' location, and how far they extend beyond the tile."""
    try:
        beyond = overhang(tile, footprints)
    except ValueError as error:  # the code is not a tile's
        return (str(error) if len(footprints) else ""), {}
    outside, furthest = int((beyond > MAX_OVERHANG).sum()), float(beyond.max(initial=0))
    reach = f"{furthest / 1000:,.1f} km" if np.isfinite(furthest) else "beyond its UTM zone"
    fault = f"{outside} of {len(footprints)} footprints outside, the furthest by {reach}" if outside else ""
    largest = float(beyond[np.isfinite(beyond)].max(initial=0))
    return fault, {"furthest out of a tile, m": round(largest, 1)}


def _model(source: BinaryIO) -> dict[str, str]:
    """Return model, level and checkpoint of a file as one string."""
    source.seek(0)
    try:
        facts = read_provenance(source)
    except DamagedFileError:
        return {}
    names = ("model", "level", "checkpoint_sha256")
    return {"models": " ".join(facts.get(name, "unknown")[:24] for name in names)}
