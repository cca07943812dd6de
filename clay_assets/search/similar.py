"""`similar`: the nearest rows of a collection, by brute force, from a stream that is never held."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

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
from clay_assets.reading.scan import Task, at_once, blocks, opened, tasks
from clay_assets.reading.selection import Selection
from clay_assets.search.examples import Place, find_examples
from clay_assets.search.similarity import Hits, best, collection_mean, cosines, query_direction
from clay_assets.storage import S3Options

GATHERED = 64
"""Pieces of hits joined at a time: k rows each."""


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
    """Find the embeddings most like some examples.

    Similarity is the cosine of centred vectors: the collection's mean is subtracted first. With several
    examples and counter-examples it is the cosine to the mean of the examples' directions less that of the
    counter-examples'. Vectors are read once, a few megabytes at a time; the collection may be larger than
    memory. At levels with several vectors a row, their mean is compared.

    Args:
        where: A folder, a file, or a list of either; local paths or `s3://bucket/prefix`.
        to: `source_url` of an example chip, or its file name; or several.
        at: Longitude and latitude of an example, in degrees; or several. The row that covers the place
            counts, with the nearest middle if several do.
        date: Day of the examples; of a place without one, the latest.
        unlike: Counter-examples, named as in `to`.
        k: How many to find.
        raw: Whether to compare vectors as they are, with their large common part.
        version: Of the published files, where a folder has several.
        options: How to reach S3; the AWS SDK's own variables and files where None.

    Returns:
        At most k rows, the most similar first, with `source_url`, `date`, `similarity` (-1 to 1) and
        `geometry`. Rows of the examples' own URLs are left out. `attrs["clay"]` has the files' provenance,
        `attrs["examples"]` the examples' URLs.

    Raises:
        ExampleMissing: An example is in no file.
        MixedEmbeddings, NothingToRead, DamagedFileError, StorageError: As `read_embeddings`.
        ValueError: No example is given, k is below 1, or the examples point nowhere.
    """
    query = Query(tuple(_names(to)), tuple(_places(at)), date, tuple(_names(unlike)), k, raw, version)
    return search(where, query, options).found


@dataclass(frozen=True)
class Query:
    """What is searched for; each as `similar` takes it.

    Raises:
        ValueError: No example is given, or k is below 1.
    """

    to: tuple[str, ...] = ()
    at: tuple[Place, ...] = ()
    date: datetime.date | None = None
    unlike: tuple[str, ...] = ()
    k: int = 10
    raw: bool = False
    version: int | None = None

    def __post_init__(self) -> None:
        if not (self.to or self.at or self.unlike):
            raise ValueError("got no example; expected a chip in `to` or `unlike`, or a place in `at`")
        if self.k < 1:
            raise ValueError(f"got k {self.k}; expected 1 or more")


@dataclass(frozen=True, eq=False)
class Found:
    """What a search gives.

    Attributes:
        found: As `similar` returns it.
        examples: `source_url`, `date` and `geometry` of the examples and counter-examples; `wanted` is True
            for the former.
    """

    found: geopandas.GeoDataFrame
    examples: geopandas.GeoDataFrame


def search(where: Where, query: Query, options: S3Options | None = None) -> Found:
    """Do what `similar` describes, and give the examples' rows too."""
    files, facts = chosen_files(where, Selection(version=query.version), options)
    if not files:
        raise NothingToRead(f"got no file of version {query.version}; expected some. Name another version")
    dim = _dim(files, facts)
    examples = find_examples(
        files, facts, to=query.to, at=query.at, day=query.date, unlike=query.unlike, dim=dim
    )
    mean = np.zeros(dim) if query.raw else collection_mean(files, facts, dim)
    direction = query_direction(examples.vectors, examples.wanted, mean)
    own = pc.unique(examples.rows["source_url"])
    hits = _search(files, facts, direction, mean.astype(np.float32), own, query.k)
    found = _frame(hits.rows)
    found.insert(2, "similarity", hits.similarity)
    found.attrs = {"clay": dict(facts[0].provenance), "examples": own.to_pylist()}
    looked_for = _frame(examples.rows)
    looked_for["wanted"] = np.arange(len(looked_for)) < examples.wanted
    return Found(found, looked_for)


def _search(
    files: Sequence[SourceFile],
    facts: Sequence[Facts],
    direction: NDArray[np.float32],
    mean: NDArray[np.float32],
    left_out: pa.Array,
    k: int,
) -> Hits:
    def look(task: Task) -> Hits | None:
        held: Hits | None = None
        for block in blocks(task, ALONGSIDE):
            similarity = cosines(place_means(block.vectors, len(mean)), direction, mean)
            similarity[pc.is_in(block.rows["source_url"], left_out).to_numpy()] = -np.inf
            # More than k only where the last of them have equals, of which the earlier counts.
            top = np.argsort(-similarity, kind="stable")[:k]
            piece = Hits(block.rows.take(pa.array(top)), similarity[top])
            held = best([held, piece] if held else [piece], k)
        return held

    waiting: list[Hits] = []
    for piece in at_once(look, tasks(files, facts)):
        waiting += [piece] if piece is not None else []
        if len(waiting) == GATHERED:
            joined = best(waiting, k)
            waiting = [joined] if joined else []
    found = best(waiting, k)
    if found is None:  # files without rows
        return Hits(pa.table({name: [] for name in ALONGSIDE}), np.empty(0, np.float32))
    seen = np.isfinite(found.similarity)
    return Hits(found.rows.filter(pa.array(seen)), found.similarity[seen])


def _dim(files: Sequence[SourceFile], facts: Sequence[Facts]) -> int:
    """Numbers of one vector: the last axis of the files' shape; of lists, those of the first row."""
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


def _names(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _places(given: Place | Sequence[Place]) -> list[Place]:
    if len(given) == 2 and not isinstance(given[0], Sequence):
        given = [given]  # type: ignore[list-item]
    places = [(float(place[0]), float(place[1])) for place in given]  # type: ignore[index]
    for lon, lat in places:
        if not (-180 <= lon <= 180 and -90 <= lat <= 90):
            raise ValueError(f"got the place {lon:g},{lat:g}; expected longitude, latitude in degrees")
    return places
