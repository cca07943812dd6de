"""Checks of `embeddings_geoparquet`: can the published file be read, and does it lie where its tile is?

Both are errors: a reader would be misled. Neither blocks, as nothing comes after the published file.
https://docs.dagster.io/guides/test/asset-checks
"""

import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from clay_assets.dagster.object_store import ObjectStore
from clay_assets.dagster.verdict import Verdict, tiles_of_run
from clay_assets.publishing import validate
from clay_assets.publishing.publish import published_files
from clay_assets.publishing.rows import parsed
from clay_assets.storage import Store, StoredObject
from clay_assets.tiles.bounds import overhang

ASSET = dg.AssetKey("embeddings_geoparquet")

LOOKERS = 8
"""Files looked at at a time."""

SMALL = 64 * 2**20
"""Bytes of a file that is fetched whole; a larger one is streamed, one at a time."""

MAX_OVERHANG = 5_120.0
"""Metres that a footprint may reach out of its tile: the width of a chip, so that one which begins inside
passes. A wrong zone, swapped coordinates or another tile's chip are off by tens of kilometres."""

SPECS = (
    dg.AssetCheckSpec(
        "file_readable_and_valid",
        asset=ASSET,
        description="Every row can be read, and is as GeoParquet 1.0.0 and the file's name and footer say.",
    ),
    dg.AssetCheckSpec(
        "geometry_inside_the_tile",
        asset=ASSET,
        description="No footprint reaches out of its Sentinel-2 tile, as the MGRS code places it, by more"
        f" than {MAX_OVERHANG:,.0f} m, the width of a chip.",
    ),
)

_one_large_file = threading.Semaphore()


@dataclass(frozen=True)
class FileFacts:
    """What was seen of a published file.

    Attributes:
        tile: MGRS code.
        faults: What is wrong with it, a sentence each.
        rows: Footprints read.
        bytes: Size of the file.
        overhang: Of the footprint that reaches out of the tile the furthest, metres.
        outside: Footprints that reach out by more than `MAX_OVERHANG`.
        lost: Why the tile itself lies nowhere; "" where it does not.
    """

    tile: str
    faults: list[str]
    rows: int
    bytes: int
    overhang: float
    outside: int
    lost: str = ""


def build_embeddings_geoparquet_checks(manifest: Sequence[str], version: int) -> dg.AssetChecksDefinition:
    """Make the checks: a file is fetched once for both.

    Args:
        manifest: All tiles; looked at where the checks are launched without a run's tiles.
        version: Of the published files, where the run's config names no other.
    """

    @dg.multi_asset_check(name="embeddings_geoparquet_checks", specs=SPECS, can_subset=True)
    def embeddings_geoparquet_checks(
        context: dg.AssetCheckExecutionContext, output: ObjectStore
    ) -> Iterator[dg.AssetCheckResult]:
        tiles = tiles_of_run(context, manifest)
        files = published_files(output.store(), _version_of_run(context, version))
        with ThreadPoolExecutor(LOOKERS, thread_name_prefix="check") as pool:
            there = [tile for tile in tiles if tile in files]
            facts = list(pool.map(lambda tile: look_at_file(output.store(), tile, files[tile]), there))
        missing = {tile: "has no published file" for tile in tiles if tile not in files}
        for key in sorted(context.selected_asset_check_keys):
            verdict = Verdict(key, dg.AssetCheckSeverity.ERROR, len(facts), missing)
            (_valid if key.name == SPECS[0].name else _inside)(facts, verdict)
            yield verdict.result()

    return embeddings_geoparquet_checks


def _version_of_run(context: dg.AssetCheckExecutionContext, default: int) -> int:
    """The version that the run's config asks of the asset, if it does."""
    ops: Any = context.run.run_config.get("ops") or {}
    version = ((ops.get("embeddings_geoparquet") or {}).get("config") or {}).get("version")
    return default if version is None else int(version)


def look_at_file(output: Store, tile: str, files: Sequence[StoredObject]) -> FileFacts:
    """Read a tile's published file.

    Args:
        output: Where it lies.
        tile: MGRS code.
        files: What lies there of the tile and version; there should be one.

    Raises:
        StorageError: If the file cannot be fetched.
    """
    file = files[-1]
    faults = [f"{len(files)} files of one version: expected one"] if len(files) > 1 else []
    if file.size <= SMALL:
        return _look(tile, file, io.BytesIO(output.read(file)), faults)
    with _one_large_file, closing(output.open(file)) as source:
        return _look(tile, file, source, faults)


def _look(tile: str, file: StoredObject, source: BinaryIO, faults: list[str]) -> FileFacts:
    faults = faults + validate(source, name=PurePosixPath(file.url).name)
    source.seek(0)
    try:
        column = pq.read_table(source, columns=["geometry"])["geometry"]
        column = column if pa.types.is_binary(column.type) else pa.chunked_array([], pa.binary())
    except (pa.ArrowException, KeyError, OSError, UnicodeDecodeError):
        column = pa.chunked_array([], pa.binary())
    # What is no geometry, or not readable, is left out here: `validate` has said so.
    footprints = parsed(column)
    footprints = footprints[~shapely.is_missing(footprints)]
    try:
        beyond = overhang(tile, footprints)
    except ValueError as error:  # the code names no tile
        return FileFacts(tile, faults, len(footprints), file.size, np.inf, len(footprints), lost=str(error))
    outside = int((beyond > MAX_OVERHANG).sum())
    return FileFacts(tile, faults, len(footprints), file.size, float(beyond.max(initial=0)), outside)


def _valid(facts: Sequence[FileFacts], verdict: Verdict) -> None:
    verdict.faults |= {look.tile: " ".join(look.faults) for look in facts if look.faults}
    verdict.numbers |= {
        "rows": sum(look.rows for look in facts),
        "bytes": sum(look.bytes for look in facts),
    }


def _inside(facts: Sequence[FileFacts], verdict: Verdict) -> None:
    for look in facts:
        if look.lost:
            verdict.faults[look.tile] = look.lost
        elif look.outside:
            reach = f"{look.overhang / 1000:,.1f} km" if np.isfinite(look.overhang) else "beyond its UTM zone"
            verdict.faults[look.tile] = (
                f"{look.outside} of {look.rows} footprints outside, the furthest by {reach}"
            )
    reaches = [look.overhang for look in facts if np.isfinite(look.overhang)]
    verdict.numbers |= {
        "footprints": sum(look.rows for look in facts),
        "furthest out of a tile, m": round(max(reaches, default=0.0), 1),
    }
