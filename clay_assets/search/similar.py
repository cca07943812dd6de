"""`similar`: the nearest rows of a collection, by brute force, read as a stream."""

import datetime
from collections.abc import Sequence
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clay_assets.reading.embeddings import chosen_files, frame_of
from clay_assets.reading.files import Facts, NothingToRead, Where
from clay_assets.reading.scan import OTHERS, blocks, dim_of, in_parallel, parts
from clay_assets.reading.selection import Selection
from clay_assets.search.examples import Place, Query, find_examples
from clay_assets.search.similarity import best, collection_mean, cosines, place_means, query_direction
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
    query = Query(
        version=version,
        to=[to] if isinstance(to, str) else to,
        at=[(float(lon), float(lat)) for lon, lat in places],
        day=date,
        unlike=[unlike] if isinstance(unlike, str) else unlike,
    )
    return search(where, query, k, raw=raw, options=options)[0]


def search(
    where: Where, query: Query, k: int, *, raw: bool = False, options: S3Options | None = None
) -> tuple[geopandas.GeoDataFrame, geopandas.GeoDataFrame]:
    """Return what `similar` returns, and the examples' rows with `wanted`: False for counter-examples."""
    if k < 1:
        raise ValueError(f"got k {k}; expected 1 or more")
    files = chosen_files(where, Selection(version=query.version), options)
    if not files:
        raise NothingToRead(f"got no file of version {query.version}; expected some. Name another version")
    dim, provenance = dim_of(files), files[0].provenance
    (examples, vectors), positive = find_examples(files, query, dim)
    mean = np.zeros(dim) if raw else collection_mean(files, dim)
    direction = query_direction(vectors, positive, mean)
    own_urls = pc.unique(examples["source_url"])
    nothing = OTHERS.append(pa.field("similarity", pa.float32())).empty_table()

    def nearest(part: Facts) -> pa.Table:
        hits = nothing
        for rows, vectors in blocks(part, OTHERS.names):
            similarity = cosines(place_means(vectors, dim), direction, mean.astype(np.float32))
            similarity[pc.is_in(rows["source_url"], own_urls).to_numpy()] = np.nan
            hits = best([hits, rows.append_column("similarity", pa.array(similarity))], k)
        return hits

    hits = nothing
    for piece in in_parallel(nearest, parts(files)):
        hits = best([hits, piece], k)
    found = frame_of(hits.filter(pc.is_finite(hits["similarity"])), provenance)
    found.attrs["examples"] = own_urls.to_pylist()
    return found, frame_of(examples, provenance).assign(wanted=np.arange(len(examples)) < positive)
