"""The arithmetic of a search: the mean of a collection, cosine, and the k best of a stream of blocks.

Vectors of one network share a large common part: between any two of a published file the cosine is about
0.97, whatever they show. With the collection's mean subtracted, what is left tells places apart.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clay_assets.reading.columns import place_means
from clay_assets.reading.facts import Facts
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import Task, at_once, blocks, tasks

TINY = 1e-30
"""Length below which a vector has no direction: its similarity is 0."""


@dataclass(frozen=True, eq=False)
class Hits:
    """The best rows so far, the most similar first.

    Attributes:
        rows: Of the hits.
        similarity: (k,) float32, -1 to 1.
    """

    rows: pa.Table
    similarity: NDArray[np.float32]


def collection_mean(files: Sequence[SourceFile], facts: Sequence[Facts], dim: int) -> NDArray[np.float64]:
    """The mean vector of all rows, from the footers; only files whose footer has none are read.

    Returns:
        (D,).
    """
    total = np.zeros(dim)
    for fact in facts:
        if fact.mean is not None:
            total += fact.rows * fact.mean
    unknown = [pair for pair in zip(files, facts, strict=True) if pair[1].mean is None]

    def add_up(task: Task) -> NDArray[np.float64]:
        sums = np.zeros(dim)
        for block in blocks(task, []):
            sums += place_means(block.vectors, dim).sum(axis=0, dtype=np.float64)
        return sums

    for sums in at_once(add_up, tasks(*zip(*unknown, strict=True)) if unknown else []):
        total += sums
    mean: NDArray[np.float64] = total / max(1, sum(fact.rows for fact in facts))
    return mean


def query_direction(
    vectors: NDArray[np.float32], wanted: int, mean: NDArray[np.float64]
) -> NDArray[np.float32]:
    """One direction for several examples: the mean of their directions less that of the counter-examples'.

    With one example alone it is that example's own, and similarity is the plain cosine to it.

    Args:
        vectors: (N, D), examples first.
        wanted: How many are examples.
        mean: (D,) that is subtracted.

    Returns:
        (D,) of length 1.

    Raises:
        ValueError: Nothing remains: an example is a counter-example too, or equals the mean.
    """
    centred = vectors.astype(np.float64) - mean
    units = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), TINY)
    direction = np.zeros(len(mean))
    if wanted:
        direction += units[:wanted].mean(axis=0)
    if wanted < len(units):
        direction -= units[wanted:].mean(axis=0)
    length = np.linalg.norm(direction)
    if length < 1e-6:  # float32 vectors that cancel out leave about 1e-7
        raise ValueError(
            "got examples that point nowhere: those to find and those to avoid cancel out, or equal the"
            " collection's mean; expected examples that differ"
        )
    unit: NDArray[np.float32] = (direction / length).astype(np.float32)
    return unit


def cosines(
    vectors: NDArray[np.float32], direction: NDArray[np.float32], mean: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Cosine of each centred vector with a direction of length 1.

    In float32: within 1e-6 of float64, at a third of its time.

    Args:
        vectors: (N, D).
        direction: (D,).
        mean: (D,) that is subtracted; zeros for the raw cosine.

    Returns:
        (N,) float32.
    """
    centred = vectors - mean
    lengths = np.sqrt(np.einsum("nd,nd->n", centred, centred))
    # Not `@`: BLAS would start threads of its own in each of the threads that read.
    products = np.einsum("nd,d->n", centred, direction)
    similarity: NDArray[np.float32] = products / np.maximum(lengths, np.float32(TINY))
    return similarity


def best(pieces: Iterable[Hits], k: int) -> Hits | None:
    """The k most similar of several pieces; of equal ones, the earlier. None without pieces."""
    held = list(pieces)
    if not held:
        return None
    rows = pa.concat_tables([piece.rows for piece in held], promote_options="permissive")
    similarity = np.concatenate([piece.similarity for piece in held])
    order = np.argsort(-similarity, kind="stable")[:k]
    return Hits(rows.take(pa.array(order)), similarity[order])
