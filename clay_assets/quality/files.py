"""What a tile's published file shows when it is read again: is it valid, and is it where its tile is?"""

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

from clay_assets.parquet import DamagedFileError
from clay_assets.publishing import read_provenance, validate
from clay_assets.publishing.rows import parsed
from clay_assets.quality.report import Report
from clay_assets.storage import Store, StoredObject
from clay_assets.tiles.bounds import overhang

VALID, INSIDE = "file_readable_and_valid", "geometry_inside_the_tile"
ONE_MODEL = "version_holds_one_model"

SMALL = 64 * 2**20
"""Bytes of a file that is fetched whole; a larger one is streamed, one at a time."""

MAX_OVERHANG = 5_120.0
"""Metres that a footprint may reach out of its tile: the width of a chip, so that one which begins inside
passes. A wrong zone, swapped coordinates or another tile's chip are off by tens of kilometres."""

_one_large_file = threading.Semaphore()


def examine_file(output: Store, tile: str, files: Sequence[StoredObject]) -> Report:
    """Read a tile's published file.

    Args:
        output: Store of published files.
        tile: MGRS code.
        files: The files of the tile and version; there should be one.

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
    source.seek(0)
    try:
        column = pq.read_table(source, columns=["geometry"])["geometry"]
        column = column if pa.types.is_binary(column.type) else pa.chunked_array([], pa.binary())
    except (pa.ArrowException, KeyError, OSError, UnicodeDecodeError):
        column = pa.chunked_array([], pa.binary())
    # Unreadable geometries are left out here: `validate` has named them.
    footprints = parsed(column)
    footprints = footprints[~shapely.is_missing(footprints)]
    numbers: dict[str, Any] = {"footprints": len(footprints)}
    try:
        beyond = overhang(tile, footprints)
        outside = int((beyond > MAX_OVERHANG).sum())
        furthest = float(beyond.max(initial=0))
        reach = f"{furthest / 1000:,.1f} km" if np.isfinite(furthest) else "beyond its UTM zone"
        misplaced = f"{outside} of {len(footprints)} footprints outside, the furthest by {reach}"
        numbers["furthest out of a tile, m"] = round(float(beyond[np.isfinite(beyond)].max(initial=0)), 1)
    except ValueError as error:  # the code names no tile
        outside, misplaced = len(footprints), str(error)
    found = {VALID: " ".join(faults), INSIDE: misplaced if outside else ""}
    made = _made(source)
    return Report(
        tile,
        examined=file.etag,
        faults={check: fault for check, fault in found.items() if fault},
        numbers={VALID: {"rows": len(footprints), "bytes": file.size}, INSIDE: numbers, ONE_MODEL: made},
    )


def _made(source: BinaryIO) -> dict[str, str]:
    """Checkpoint and level that a file names, as one word."""
    source.seek(0)
    try:
        facts = read_provenance(source)
    except DamagedFileError:
        return {}
    names = ("model", "level", "checkpoint_sha256")
    return {"models": " ".join(facts.get(name, "unknown")[:24] for name in names)}
