"""`export`: published files as one dataset, `grid_zone=27W/year=2020/embeddings.parquet`, and its report.

`_report.json` next to the folders has counts and the recall; `_item.json` is a STAC Item of the dataset.
Readers of a folder ignore names that begin with an underscore.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from clay_assets.chips.place import joined_bounds
from clay_assets.export.layout import Gatherer, place_rows, row_groups
from clay_assets.export.quantization import SAMPLE_ROWS, SEED, Recall, calibrate, dequantize, quantize, recall
from clay_assets.export.stac_item import export_item
from clay_assets.export.writer import write_partition
from clay_assets.publishing.schema import Bounds
from clay_assets.reading.embeddings import chosen_files
from clay_assets.reading.facts import Facts
from clay_assets.reading.files import NothingToRead, Where
from clay_assets.reading.selection import Selection, boxes_of
from clay_assets.search.similarity import collection_mean
from clay_assets.stac.parts import as_bytes
from clay_assets.storage import S3Options, Store

Stored = Literal["float32", "uint8"]

NAME = "embeddings.parquet"


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        url: URL of the dataset's folder.
        rows: Number of rows.
        files: Number of partitions.
        bytes: Size of all files.
        dtype: Stored type of the vectors.
        first: Earliest acquisition.
        last: Latest acquisition.
        bbox: Bounds of all rows, degrees in OGC:CRS84.
        recall: Loss by quantization; None for float32, or for too few rows.
        provenance: What all files have in common.
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
    """Write one dataset of all published files; replace an earlier one at `target`.

    Files appear one by one: do not read a dataset that is being replaced before the export has ended.

    Args:
        where: A folder, a file, or a list of either.
        target: Folder or prefix that holds the dataset alone.
        dtype: Stored type of the vectors; `uint8` takes about a quarter of the bytes.
        version: Version of the published files, if a folder has several.
        options: How to reach S3; None for the AWS SDK's own variables and files.

    Raises:
        MixedEmbeddings, NothingToRead, DamagedFileError, StorageError: As `read_embeddings`.
        NoGridZone: A file's name has no tile.
        ValueError: The level has several vectors a row, or the target holds the published files.
    """
    files, facts = chosen_files(where, Selection(version=version), options)
    _refuse(facts, [file.url for file in files], target)
    placed = place_rows(files, facts)
    gatherer = Gatherer(files, facts)
    quantization = calibrate(files, facts) if dtype == "uint8" else None
    provenance = _common([fact.provenance for fact in facts])
    width = gatherer.take(placed[:1]).vectors.shape[1]
    sizes: dict[str, int] = {}
    parts: list[tuple[Bounds, date, date]] = []
    with tempfile.TemporaryDirectory(prefix="clay-export-") as folder:
        path = Path(folder) / NAME
        for (zone, year), rows in placed.groupby(["zone", "year"], observed=True):
            groups = (gatherer.take(group) for group in row_groups(rows))
            parts.append(write_partition(path, groups, width, provenance, quantization))
            key = f"grid_zone={zone}/year={year}/{NAME}"
            target.put(key, path)
            sizes[target.url(key)] = path.stat().st_size
    for earlier in target.list("grid_zone="):
        if earlier.url not in sizes:
            target.delete(earlier)
    measured = None
    if quantization is not None:
        exact = gatherer.take(placed.sample(min(len(placed), SAMPLE_ROWS), random_state=SEED)).vectors
        copy = dequantize(quantize(exact, quantization), quantization)
        measured = recall(exact, copy, collection_mean(files, facts, width))
    done = Exported(
        url=target.uri,
        rows=len(placed),
        files=len(sizes),
        bytes=sum(sizes.values()),
        dtype=dtype,
        first=min(first for _, first, _ in parts),
        last=max(last for _, _, last in parts),
        bbox=joined_bounds(np.array([box for bounds, _, _ in parts for box in boxes_of(bounds)])),
        recall=measured,
        provenance=provenance,
    )
    days = {"first": str(done.first), "last": str(done.last)}
    target.write("_report.json", as_bytes(asdict(done) | days))
    target.write("_item.json", as_bytes(export_item(done, width, quantization, datetime.now(UTC))))
    return done


def _refuse(facts: Sequence[Facts], urls: Sequence[str], target: Store) -> None:
    if not sum(fact.rows for fact in facts):
        raise NothingToRead("got no rows to export; expected published embeddings of this version")
    shapes = {fact.shape for fact in facts if len(fact.shape) > 1}
    if shapes:
        raise ValueError(
            f"got embeddings of shape {shapes.pop()}; expected one vector a row. Embed at level mean, or the"
            " model's own, to export"
        )
    # Readers of either folder would read the other's files too.
    nested = [
        url
        for url in urls
        if f"{target.uri}/".startswith(f"{url.rpartition('/')[0]}/") or url.startswith(f"{target.uri}/")
    ]
    if nested:
        raise ValueError(
            f"got the target {target.uri}, in one folder with {nested[0]}; expected a folder of its own"
        )


def _common(provenances: Sequence[dict[str, str]]) -> dict[str, str]:
    """Return the provenance that all files share, without `inputs`; counts are added up."""
    first, *others = provenances
    common = {name: text for name, text in first.items() if all(one.get(name) == text for one in others)}
    common.pop("inputs", None)
    for name in ("chips", "skipped"):
        counts = [one.get(name, "") for one in provenances]
        if all(count.isdecimal() for count in counts):
            common[name] = str(sum(map(int, counts)))
    return common
