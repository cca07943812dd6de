"""The arithmetic of a search: the mean of a collection, the cosine, and the k best of a stream of rows.

Vectors of one network share a large common part: between any two of a published file the cosine is about
0.97, whatever they show. The difference from the collection's mean distinguishes places.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clay_assets.reading.files import Facts
from clay_assets.reading.scan import blocks, in_parallel, parts

TINY = 1e-30  # length below which a vector has no direction: its similarity is 0


def best(tables: Sequence[pa.Table], k: int) -> pa.Table:
    """Return the k rows of the highest `similarity`, NaN last; among equals, the earlier ones."""
    rows = pa.concat_tables(tables, promote_options="permissive")
    order = pc.sort_indices(rows["similarity"], sort_keys=[("", "descending")])  # stable
    return rows.take(order[:k])


def place_means(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Average (N, width) vectors over their places to (N, D), as level mean has them; D divides the width."""
    if vectors.shape[1] == dim:
        return vectors
    return vectors.reshape(len(vectors), -1, dim).mean(axis=1)


def collection_mean(files: Sequence[Facts], dim: int) -> NDArray[np.float64]:
    """Return the mean vector (D,) of all rows, from the footers; reads only files whose footer has none."""

    def add_up(part: Facts) -> NDArray[np.float64]:
        sums = np.zeros(dim)
        for block in blocks(part, []):
            sums += place_means(block.vectors, dim).sum(axis=0, dtype=np.float64)
        return sums

    total = np.zeros(dim)
    for facts in files:
        if facts.mean is not None:
            total += facts.rows * facts.mean
    for sums in in_parallel(add_up, parts(facts for facts in files if facts.mean is None)):
        total += sums
    return total / max(1, sum(facts.rows for facts in files))


def units(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return (N, D) vectors at length 1; zeros for those without a direction."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY)


def query_direction(
    vectors: NDArray[np.float32], positive: int, mean: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return one direction (D,) of length 1: the mean of the examples' minus that of the counter-examples'.

    Similarity to a single example is thus the plain cosine. Of the (N, D) vectors the first `positive` are
    examples; the mean (D,) is subtracted from each. ValueError if nothing remains.
    """
    directions = units(vectors.astype(np.float64) - mean)
    wanted, unwanted = directions[:positive], directions[positive:]
    total = wanted.sum(axis=0) / max(1, len(wanted)) - unwanted.sum(axis=0) / max(1, len(unwanted))
    length = np.linalg.norm(total)
    if length < 1e-6:  # float32 vectors that cancel out leave about 1e-7
        raise ValueError(
            "got examples without a direction: those to find and those to avoid cancel out, or equal the"
            " collection's mean; expected examples that differ"
        )
    return (total / length).astype(np.float32)


def cosines(
    vectors: NDArray[np.float32], direction: NDArray[np.float32], mean: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the cosine (N,) of each centred (N, D) vector with a direction of length 1.

    In float32: within 1e-6 of float64, in a third of its time. A mean of zeros gives the raw cosine.
    """
    centred = vectors - mean
    lengths = np.sqrt(np.einsum("nd,nd->n", centred, centred))
    # Not `@`: BLAS would start its own threads in each of the reading threads.
    products = np.einsum("nd,d->n", centred, direction)
    return products / np.maximum(lengths, np.float32(TINY))
