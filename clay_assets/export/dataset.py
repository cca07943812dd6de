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
import pyarrow as pa

from clay_assets.chips.place import joined_bounds
from clay_assets.export.layout import Gatherer, place_rows, row_groups
from clay_assets.export.quantization import SAMPLE_ROWS, SEED, Recall, calibrate, quantize, recall
from clay_assets.export.writer import copy_schema, write_partition
from clay_assets.publishing.schema import Bounds
from clay_assets.reading.embeddings import chosen_files
from clay_assets.reading.files import Facts, NothingToRead, Quantization, Where
from clay_assets.reading.scan import dim_of
from clay_assets.reading.selection import Selection, boxes_of
from clay_assets.search.similarity import collection_mean
from clay_assets.stac import parts as stac
from clay_assets.storage import S3Options, Store

Stored = Literal["float32", "uint8"]


@dataclass(frozen=True)
class Exported:
    """Result of an export."""

    url: str  # of the dataset's folder
    rows: int
    files: int  # one for each partition
    bytes: int  # of all files
    dtype: Stored  # of the stored vectors
    first: date  # earliest acquisition
    last: date  # latest acquisition
    bbox: Bounds  # of all rows
    recall: Recall | None  # loss by quantization; None for float32, or for too few rows
    provenance: dict[str, str]  # what all files have in common


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
        where: As in `read_embeddings`.
        target: Folder or prefix that holds the dataset alone.
        dtype: Stored type of the vectors; `uint8` takes about a quarter of the bytes.
        version: Version of the published files, if a folder has several.
        options: How to reach S3, to read; None: the AWS SDK's own variables and files.

    Raises:
        MixedEmbeddings, NothingToRead, DamagedFileError, StorageError: As `read_embeddings`.
        ValueError: A file's name has no tile, the level has several vectors a row, or the target holds the
            published files.
    """
    files = chosen_files(where, Selection(version=version), options)
    _refuse(files, target)
    placed = place_rows(files)
    gatherer = Gatherer(files)
    quantization = calibrate(files) if dtype == "uint8" else None
    provenance = _common([facts.provenance for facts in files])
    width = dim_of(files)
    schema = copy_schema(width, quantized=quantization is not None)
    sizes: dict[str, int] = {}
    written: list[tuple[Bounds, date, date]] = []
    with tempfile.TemporaryDirectory(prefix="clay-export-") as folder:
        path = Path(folder, "embeddings.parquet")
        for (zone, year), rows in placed.groupby(["zone", "year"], observed=True):
            groups = (gatherer.take(group) for group in row_groups(rows))
            written.append(write_partition(path, groups, schema, provenance, quantization))
            key = f"grid_zone={zone}/year={year}/{path.name}"
            target.put(key, path)
            sizes[target.url(key)] = path.stat().st_size
    for earlier in target.list("grid_zone="):
        if earlier.url not in sizes:
            target.delete(earlier)
    measured = None
    if quantization is not None:
        exact = gatherer.take(placed.sample(min(len(placed), SAMPLE_ROWS), random_state=SEED)).vectors
        copy = quantization.restore(quantize(exact, quantization))
        measured = recall(exact, copy, collection_mean(files, width))
    bounds, first, last = zip(*written, strict=True)
    done = Exported(
        url=target.uri,
        rows=len(placed),
        files=len(sizes),
        bytes=sum(sizes.values()),
        dtype=dtype,
        first=min(first),
        last=max(last),
        bbox=joined_bounds(np.array([part for bbox in bounds for part in boxes_of(bbox)])),
        recall=measured,
        provenance=provenance,
    )
    days = {"first": str(done.first), "last": str(done.last)}
    target.write("_report.json", stac.as_bytes(asdict(done) | days))
    target.write("_item.json", stac.as_bytes(_item(done, schema, quantization)))
    return done


def _item(done: Exported, schema: pa.Schema, quantization: Quantization | None) -> stac.Json:
    """Describe the dataset as a STAC Item, with `emb:quantization` if its vectors are bytes."""
    days = (done.first, done.last)
    properties: stac.Json = {
        **stac.file_properties(done.provenance, schema, done.rows, days, datetime.now(UTC)),
        "clay:model": done.provenance.get("model", "not said"),
        "clay:bytes": done.bytes,
    }
    if quantization is not None:
        properties["emb:quantization"] = {
            "method": "affine: stored * scale + offset, by dimension",
            "original_dtype": "float32",
            "quantized_dtype": "uint8",
            **quantization.as_lists(),
        }
    if done.recall is not None:
        properties["clay:recall"] = vars(done.recall)
    return stac.feature(
        id=done.url.rstrip("/").rpartition("/")[2],
        geometry=stac.box(done.bbox),
        bbox=done.bbox,
        extensions=[stac.EMBEDDINGS, stac.PROCESSING, stac.TABLE],
        properties=properties,
        links=[],
        assets={"embeddings": {"href": "./", "type": stac.PARQUET, "roles": ["data"]}},
    )


def _refuse(files: Sequence[Facts], target: Store) -> None:
    if not sum(facts.rows for facts in files):
        raise NothingToRead("got no rows to export; expected published embeddings of this version")
    if len(files[0].shape) > 1:
        raise ValueError(
            f"got embeddings of shape {files[0].shape}; expected one vector a row. Embed at level mean, or"
            " the model's own, to export"
        )
    # Readers of either folder would read the other's files too.
    for url in (facts.file.url for facts in files):
        if f"{target.uri}/".startswith(f"{url.rpartition('/')[0]}/") or url.startswith(f"{target.uri}/"):
            raise ValueError(
                f"got the target {target.uri}, in one folder with {url}; expected a folder of its own"
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
