"""Vectors as bytes: an affine map for each dimension, the same for the whole collection; and what it costs.

Each dimension's smallest value becomes 0, its largest 255. Recall says how many of the ten nearest neighbours
are still the ten nearest after the way there and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.reading.facts import Facts, Quantization
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import Task, at_once, blocks, tasks

STEPS = 255
NEIGHBOURS = 10
SAMPLE_ROWS = 20_000
"""Rows among which neighbours are looked for: 61 MB of 768 float32."""

QUERIES = 1_000
SEED = 0

Vectors = NDArray[np.float32]


def calibrate(files: Sequence[SourceFile], facts: Sequence[Facts]) -> Quantization:
    """Find each dimension's range over the whole collection, in one pass."""

    def look(task: Task) -> tuple[Vectors, Vectors]:
        low, high = [], []
        for block in blocks(task, []):
            low.append(block.vectors.min(axis=0))
            high.append(block.vectors.max(axis=0))
        return np.min(low, axis=0), np.max(high, axis=0)

    ranges = list(at_once(look, [task for task in tasks(files, facts) if task.facts.rows]))
    low = np.min([pair[0] for pair in ranges], axis=0)
    span = np.max([pair[1] for pair in ranges], axis=0) - low
    return Quantization(np.where(span > 0, span / np.float32(STEPS), np.float32(1)), low)


def quantize(vectors: Vectors, how: Quantization) -> NDArray[np.uint8]:
    """(N, D) float32 to bytes, to the nearest step."""
    return np.clip(np.rint((vectors - how.offset) / how.scale), 0, STEPS).astype(np.uint8)


def dequantize(stored: NDArray[np.uint8], how: Quantization) -> Vectors:
    """(N, D) bytes to float32; off by at most half a step."""
    return stored.astype(np.float32) * how.scale + how.offset


@dataclass(frozen=True)
class Recall:
    """How many of the nearest neighbours are found again.

    Attributes:
        raw: Of vectors as they are, 0 to 1.
        centred: With the mean subtracted.
        neighbours: Compared for each query.
        queries: Rows looked from.
        among: Rows looked among, drawn from the collection by a fixed seed.
    """

    raw: float
    centred: float
    neighbours: int
    queries: int
    among: int


def recall(exact: Vectors, copy: Vectors, mean: NDArray[Any]) -> Recall | None:
    """Compare the nearest neighbours, by cosine, before and after.

    Args:
        exact: (N, D) a sample of the collection, in random order.
        copy: (N, D) the same rows as a reader of the copy has them.
        mean: (D,) of the collection.

    Returns:
        None for fewer rows than a query has neighbours.
    """
    if len(exact) <= NEIGHBOURS:
        return None
    queries = min(QUERIES, len(exact))
    shares = []
    for subtracted in (np.zeros(len(mean)), mean):
        before, after = (_nearest(vectors - subtracted, queries) for vectors in (exact, copy))
        same = [len(set(a) & set(b)) for a, b in zip(before.tolist(), after.tolist(), strict=True)]
        shares.append(float(np.mean(same)) / NEIGHBOURS)
    return Recall(shares[0], shares[1], NEIGHBOURS, queries, len(exact))


def _nearest(vectors: NDArray[Any], queries: int) -> NDArray[np.int64]:
    """Rows nearest to each of the first `queries` rows, without themselves."""
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    nearest = np.empty((queries, NEIGHBOURS), np.int64)
    for start in range(0, queries, 100):  # 16 MB of cosines at a time
        end = min(start + 100, queries)
        cosine = units[start:end] @ units.T
        cosine[np.arange(end - start), np.arange(start, end)] = -np.inf
        nearest[start:end] = np.argpartition(-cosine, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return nearest
