"""`export`: published files into one dataset, `grid_zone=27W/year=2020/embeddings.parquet`, and its report.

`_report.json` beside the folders says what was written and what the bytes cost; `_item.json` is a STAC Item
of the whole. Readers of a folder pass over names that begin with an underscore.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clay_assets.chips.antimeridian import joined_bounds
from clay_assets.export.gathering import Gatherer
from clay_assets.export.layout import place_rows, row_groups
from clay_assets.export.quantization import (
    SAMPLE_ROWS,
    SEED,
    Recall,
    calibrate,
    dequantize,
    quantize,
    recall,
)
from clay_assets.export.stac_item import export_item
from clay_assets.export.writer import Partition, write_partition
from clay_assets.publishing.schema import Bounds
from clay_assets.reading.embeddings import chosen_files
from clay_assets.reading.facts import Facts, Quantization
from clay_assets.reading.files import NothingToRead, Where
from clay_assets.reading.selection import Selection, boxes_of
from clay_assets.search.similarity import collection_mean
from clay_assets.storage import S3Options, Store

Stored = Literal["float32", "uint8"]

NAME = "embeddings.parquet"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        url: Of the dataset's folder.
        rows: In it.
        files: Partitions.
        bytes: Of all files.
        dtype: Of the vectors as stored.
        first: Earliest acquisition.
        last: Latest acquisition.
        bbox: Of all rows, degrees in OGC:CRS84.
        recall: What the copy costs; None for float32, which costs nothing, and for a handful of rows.
        provenance: What all files share.
    """

    url: str
    rows: int
    files: int
    bytes: int
    dtype: Stored
    first: date
    last: date
    bbox: Bounds
    recall: Recall | None
    provenance: dict[str, str]


def export(
    where: Where,
    target: Store,
    *,
    dtype: Stored = "float32",
    version: int | None = None,
    options: S3Options | None = None,
) -> Exported:
    """Write one dataset of all published files at an address; an earlier one at `target` is replaced.

    Files appear one by one: read a dataset that is being replaced when it is done.

    Args:
        where: A folder, a file, or a list of either.
        target: Folder or prefix of the dataset's own.
        dtype: Of the vectors as stored; `uint8` takes about a quarter of the bytes.
        version: Of the published files, where a folder has several.
        options: How to reach S3; the AWS SDK's own variables and files where None.

    Raises:
        MixedEmbeddings, NothingToRead, DamagedFileError, StorageError: As `read_embeddings`.
        NoGridZone: A file's name says no tile.
        ValueError: The level has several vectors a row, or the target holds what is exported.
    """
    files, facts = chosen_files(where, Selection(version=version), options)
    _refuse(facts, [file.url for file in files], target)
    placed = place_rows(files, facts)
    gatherer = Gatherer(files, facts, placed)
    how = calibrate(files, facts) if dtype == "uint8" else None
    said = _shared([fact.provenance for fact in facts])
    width = gatherer.take(np.arange(1)).vectors.shape[1]
    written: dict[str, int] = {}
    parts: list[Partition] = []
    with tempfile.TemporaryDirectory(prefix="clay-export-") as folder:
        for zone, year, rows in placed.partitions():
            path = Path(folder) / NAME
            groups = (gatherer.take(group) for group in row_groups(rows))
            parts.append(write_partition(path, groups, width, said, how))
            key = f"grid_zone={zone}/year={year}/{NAME}"
            target.put(key, path)
            written[key] = path.stat().st_size
    _remove_others(target, set(written))
    boxes = [box for part in parts for box in boxes_of(part.bounds)]
    done = Exported(
        url=target.uri,
        rows=len(placed.row),
        files=len(written),
        bytes=sum(written.values()),
        dtype=dtype,
        first=min(part.first for part in parts),
        last=max(part.last for part in parts),
        bbox=joined_bounds(np.array(boxes)),
        recall=_cost(gatherer, len(placed.row), how, collection_mean(files, facts, width)) if how else None,
        provenance=said,
    )
    target.write("_report.json", _json(asdict(done)))
    target.write("_item.json", _json(export_item(done, width, how, datetime.now(UTC))))
    return done


def _refuse(facts: Sequence[Facts], urls: Sequence[str], target: Store) -> None:
    if not facts or not sum(fact.rows for fact in facts):
        raise NothingToRead("got no rows to export; expected published embeddings of this version")
    shapes = {fact.shape for fact in facts if len(fact.shape) > 1}
    if shapes:
        raise ValueError(
            f"got embeddings of shape {shapes.pop()}; expected one vector a row. Embed at level mean, or the"
            " model's own, to export"
        )
    # A reader of the one would take the other's files along.
    nested = [url for url in urls if f"{target.uri}/".startswith(f"{url.rpartition('/')[0]}/")]
    nested += [url for url in urls if url.startswith(f"{target.uri}/")]
    if nested:
        raise ValueError(
            f"got the target {target.uri}, in one folder with {nested[0]}; expected a folder of its own"
        )


def _cost(gatherer: Gatherer, rows: int, how: Quantization, mean: NDArray[np.float64]) -> Recall | None:
    drawn = np.random.default_rng(SEED).choice(rows, min(rows, SAMPLE_ROWS), replace=False)
    # Taken in the files' order, so that each is decoded once, and compared in the order drawn.
    order = np.argsort(drawn)
    exact = gatherer.take(drawn[order]).vectors[np.argsort(order)]
    return recall(exact, dequantize(quantize(exact, how), how), mean)


def _shared(provenances: Sequence[dict[str, str]]) -> dict[str, str]:
    """What all files say alike; counts added up."""
    first = provenances[0]
    said = {name: text for name, text in first.items() if all(p.get(name) == text for p in provenances)}
    said.pop("inputs", None)
    for name in ("chips", "skipped"):
        counts = [p.get(name, "") for p in provenances]
        if all(count.isdecimal() for count in counts):
            said[name] = str(sum(map(int, counts)))
    return said


def _remove_others(target: Store, keys: set[str]) -> None:
    """Remove partitions of an earlier export that this one has no rows for."""
    kept = {target.url(key) for key in keys}
    for found in target.list("grid_zone="):
        if found.url not in kept:
            target.delete(found)


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, default=str) + "\n").encode()
