"""Vectors as bytes: an affine map for each dimension, the same for the whole collection; and its loss.

Each dimension's smallest value becomes 0, its largest 255. Recall is the share of the ten nearest neighbours
that are the ten nearest after quantization too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.reading.facts import Facts, Quantization
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import Task, blocks, in_parallel, tasks

STEPS = 255
NEIGHBOURS = 10
SAMPLE_ROWS = 20_000
"""Rows among which neighbours are searched: 61 MB of 768 float32."""

QUERIES = 1_000
SEED = 0

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Recall:
    """Share of nearest neighbours that are found again.

    Attributes:
        raw: With vectors as they are, 0 to 1.
        centred: With the mean subtracted.
        neighbours: Compared for each query.
        queries: Rows whose neighbours are compared.
        among: Rows searched, a sample of the collection.
    """

    raw: float
    centred: float
    neighbours: int
    queries: int
    among: int


def calibrate(files: Sequence[SourceFile], facts: Sequence[Facts]) -> Quantization:
    """Find each dimension's range over the whole collection, in one pass."""

    def extremes(task: Task) -> tuple[Vectors, Vectors]:
        found = [(block.vectors.min(axis=0), block.vectors.max(axis=0)) for block in blocks(task, [])]
        return np.min([low for low, _ in found], axis=0), np.max([high for _, high in found], axis=0)

    ranges = list(in_parallel(extremes, [task for task in tasks(files, facts) if task.facts.rows]))
    low = np.min([low for low, _ in ranges], axis=0)
    span = np.max([high for _, high in ranges], axis=0) - low
    return Quantization(np.where(span > 0, span / np.float32(STEPS), np.float32(1)), low)


def quantize(vectors: Vectors, quantization: Quantization) -> NDArray[np.uint8]:
    """Return (N, D) float32 as bytes, rounded to the nearest step."""
    steps = np.rint((vectors - quantization.offset) / quantization.scale)
    return np.clip(steps, 0, STEPS).astype(np.uint8)


def dequantize(stored: NDArray[np.uint8], quantization: Quantization) -> Vectors:
    """Return (N, D) bytes as float32, within half a step of the original."""
    return stored.astype(np.float32) * quantization.scale + quantization.offset


def recall(exact: Vectors, copy: Vectors, mean: NDArray[Any]) -> Recall | None:
    """Compare the nearest neighbours, by cosine, before and after quantization.

    Args:
        exact: (N, D), a sample of the collection in random order.
        copy: (N, D), the same rows as readers of the copy see them.
        mean: (D,) of the collection.

    Returns:
        None if there are no more rows than a query has neighbours.
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
    """Return the rows nearest to each of the first `queries` rows, without these themselves."""
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    nearest = np.empty((queries, NEIGHBOURS), np.int64)
    for start in range(0, queries, 100):  # 16 MB of cosines at a time
        end = min(start + 100, queries)
        cosine = units[start:end] @ units.T
        cosine[np.arange(end - start), np.arange(start, end)] = -np.inf
        nearest[start:end] = np.argpartition(-cosine, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return nearest
