"""Reads a tile's published file back and checks that it is valid and its footprints are in its tile."""

import io
import threading
from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from clay_assets.parquet import DAMAGE, damaged
from clay_assets.publishing.rows import parsed
from clay_assets.publishing.schema import provenance_in
from clay_assets.publishing.validation import validate
from clay_assets.quality.vectors import Verdict
from clay_assets.storage import Store, StoredObject
from clay_assets.tiles.bounds import overhang

VALID, INSIDE = "file_readable_and_valid", "geometry_inside_the_tile"
ONE_MODEL = "version_holds_one_model"

SMALL = 64 * 2**20  # bytes; larger files are streamed, one at a time

# Metres that a footprint may extend beyond its tile: the width of a chip, so that a chip passes if any of it
# is inside. A wrong zone, swapped coordinates or another tile's chip are off by tens of kilometres.
MAX_OVERHANG = 5_120.0

_one_large_file = threading.Semaphore()


def judge_file(output: Store, tile: str, files: Sequence[StoredObject]) -> dict[str, Verdict]:
    """Judge the published file of a tile and version, or the last one if there are several."""
    file = files[-1]
    small = file.size <= SMALL
    faults = [f"{len(files)} files of one version: expected one"] if len(files) > 1 else []
    with (
        nullcontext() if small else _one_large_file,
        closing(io.BytesIO(output.read(file)) if small else output.open(file)) as source,
    ):
        faults += validate(source, name=PurePosixPath(file.url).name)
        footprints, model = _read(source)
    return {
        VALID: (" ".join(faults), {"rows": len(footprints), "bytes": file.size}),
        INSIDE: _judge_location(tile, footprints),
        ONE_MODEL: ("", model),
    }


def _read(source: BinaryIO) -> tuple[NDArray[np.object_], dict[str, str]]:
    """Return a file's geometries, and its model, level and checkpoint. Leaves out what cannot be read."""
    footprints, model = np.empty(0, dtype=object), dict[str, str]()
    source.seek(0)
    try:
        parquet = pq.ParquetFile(source, pre_buffer=True)
        with suppress(UnicodeDecodeError):  # `validate` reports it; the geometries may be sound
            facts = provenance_in(parquet.metadata)
            names = ("model", "level", "checkpoint_sha256")
            model = {"models": " ".join(facts.get(name, "unknown")[:24] for name in names)}
        if pa.types.is_binary(parquet.schema_arrow.field("geometry").type):
            footprints = parsed(parquet.read(["geometry"])["geometry"])
    except KeyError:  # no such column
        pass
    except DAMAGE as error:
        damaged(error)  # raises errors of the storage
    return footprints[~shapely.is_missing(footprints)], model


def _judge_location(tile: str, footprints: NDArray[np.object_]) -> Verdict:
    try:
        beyond = overhang(tile, footprints)
    except ValueError as error:  # the code is not a tile's
        return (str(error) if len(footprints) else ""), {"footprints": len(footprints)}
    outside, furthest = int((beyond > MAX_OVERHANG).sum()), float(beyond.max(initial=0))
    reach = f"{furthest / 1000:,.1f} km" if np.isfinite(furthest) else "beyond its UTM zone"
    fault = f"{outside} of {len(footprints)} footprints outside, the furthest by {reach}" if outside else ""
    largest = float(beyond[np.isfinite(beyond)].max(initial=0))
    return fault, {"footprints": len(footprints), "furthest out of a tile, m": round(largest, 1)}
