"""`similar`: the nearest rows of a collection, by brute force, read as a stream."""

import datetime
from collections.abc import Sequence
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from clay_assets.publishing.schema import CRS
from clay_assets.reading.columns import place_means
from clay_assets.reading.embeddings import ALONGSIDE, chosen_files
from clay_assets.reading.facts import Facts
from clay_assets.reading.files import NothingToRead, SourceFile, Where
from clay_assets.reading.scan import Task, blocks, in_parallel, opened, tasks
from clay_assets.reading.selection import Selection
from clay_assets.search.examples import Place, find_examples
from clay_assets.search.similarity import Hits, best, collection_mean, cosines, query_direction
from clay_assets.storage import S3Options


def similar(
    where: Where,
    *,
    to: str | Sequence[str] = (),
    at: Place | Sequence[Place] = (),
    date: datetime.date | None = None,
    unlike: str | Sequence[str] = (),
    k: int = 10,
    raw: bool = False,
    version: int | None = None,
    options: S3Options | None = None,
) -> geopandas.GeoDataFrame:
    """Find the embeddings most similar to some examples.

    Similarity is the cosine of centred vectors: the collection's mean is subtracted first. With several
    examples and counter-examples it is the cosine to the mean of the examples' directions minus that of the
    counter-examples'. Vectors are read once, a few megabytes at a time; the collection may be larger than
    memory. At levels with several vectors a row, their mean is compared.

    Args:
        where: A folder, a file, or a list of either; local paths or `s3://bucket/prefix`.
        to: `source_url` of an example chip, or its file name; or several.
        at: Longitude and latitude of an example, in degrees; or several. The example is the row that covers
            the place; of several, the one with the nearest centre.
        date: Day of the examples; None for any, and for the latest at a place.
        unlike: Counter-examples, named as in `to`.
        k: Number of rows to find.
        raw: Whether to compare vectors as they are, with their large common part.
        version: Version of the published files, if a folder has several.
        options: How to reach S3; None for the AWS SDK's own variables and files.

    Returns:
        At most k rows, the most similar first, with `source_url`, `date`, `similarity` (-1 to 1) and
        `geometry`, without rows of the examples' own URLs. `attrs["clay"]` has the files' provenance,
        `attrs["examples"]` the examples' URLs.

    Raises:
        ExampleMissing: An example is in no file.
        MixedEmbeddings, NothingToRead, DamagedFileError, StorageError: As `read_embeddings`.
        ValueError: No example is given, k is below 1, a place is not in degrees, or the examples cancel out.
    """
    places: Any = [at] if len(at) == 2 and not isinstance(at[0], Sequence) else at
    found, _ = search(
        where,
        to=[to] if isinstance(to, str) else to,
        at=[(float(lon), float(lat)) for lon, lat in places],
        date=date,
        unlike=[unlike] if isinstance(unlike, str) else unlike,
        k=k,
        raw=raw,
        version=version,
        options=options,
    )
    return found


def search(
    where: Where,
    *,
    to: Sequence[str] = (),
    at: Sequence[Place] = (),
    date: datetime.date | None = None,
    unlike: Sequence[str] = (),
    k: int = 10,
    raw: bool = False,
    version: int | None = None,
    options: S3Options | None = None,
) -> tuple[geopandas.GeoDataFrame, geopandas.GeoDataFrame]:
    """Search as `similar` describes.

    Returns:
        The rows found, as `similar` returns them; and `source_url`, `date`, `geometry` and `wanted` of the
        examples, where `wanted` is False for counter-examples.
    """
    if not (to or at or unlike):
        raise ValueError("got no example; expected a chip in `to` or `unlike`, or a place in `at`")
    if k < 1:
        raise ValueError(f"got k {k}; expected 1 or more")
    for lon, lat in at:
        if not (-180 <= lon <= 180 and -90 <= lat <= 90):
            raise ValueError(f"got the place {lon:g},{lat:g}; expected longitude, latitude in degrees")
    files, facts = chosen_files(where, Selection(version=version), options)
    if not files:
        raise NothingToRead(f"got no file of version {version}; expected some. Name another version")
    dim = _dim(files, facts)
    examples = find_examples(files, facts, to=to, at=at, day=date, unlike=unlike, dim=dim)
    mean = np.zeros(dim) if raw else collection_mean(files, facts, dim)
    direction = query_direction(examples.vectors, examples.positive, mean)
    own_urls = pc.unique(examples.rows["source_url"])
    hits = _nearest(files, facts, direction, mean.astype(np.float32), own_urls, k)
    found = _frame(hits.rows)
    found.insert(2, "similarity", hits.similarity)
    found.attrs = {"clay": dict(facts[0].provenance), "examples": own_urls.to_pylist()}
    example_frame = _frame(examples.rows)
    example_frame["wanted"] = np.arange(len(example_frame)) < examples.positive
    return found, example_frame


def _nearest(
    files: Sequence[SourceFile],
    facts: Sequence[Facts],
    direction: NDArray[np.float32],
    mean: NDArray[np.float32],
    excluded: pa.Array,
    k: int,
) -> Hits:
    def read(task: Task) -> Hits:
        hits = nothing
        for block in blocks(task, ALONGSIDE):
            similarity = cosines(place_means(block.vectors, len(mean)), direction, mean)
            similarity[pc.is_in(block.rows["source_url"], excluded).to_numpy()] = np.nan
            top = np.argsort(-similarity, kind="stable")[:k]  # NaN last
            top = top[np.isfinite(similarity[top])]
            hits = best([hits, Hits(block.rows.take(pa.array(top)), similarity[top])], k)
        return hits

    schema = pa.schema([("source_url", pa.string()), ("date", pa.date32()), ("geometry", pa.binary())])
    hits = nothing = Hits(schema.empty_table(), np.empty(0, np.float32))
    for piece in in_parallel(read, tasks(files, facts)):
        hits = best([hits, piece], k)
    return hits


def _dim(files: Sequence[SourceFile], facts: Sequence[Facts]) -> int:
    """Return the length of one vector: the shape's last axis; for lists, that of the first row."""
    if facts[0].shape:
        return facts[0].shape[-1]
    with opened(files[0]) as parquet:
        first = next(parquet.iter_batches(1, columns=["embeddings"]))
    return len(first["embeddings"][0])


def _frame(rows: pa.Table) -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame(
        rows.select(["source_url", "date"]).replace_schema_metadata(None).to_pandas(),
        geometry=shapely.from_wkb(rows["geometry"].to_numpy()),
        crs=CRS,
    )
