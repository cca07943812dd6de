"""Vectors as bytes: an affine map for each dimension, the same for the whole collection; and its loss.

Each dimension's smallest value becomes 0, its largest 255. Recall is the share of the ten nearest neighbours
that are the ten nearest after quantization too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.reading.files import Facts, Quantization
from clay_assets.reading.scan import blocks, in_parallel, parts
from clay_assets.search.similarity import units

STEPS = 255
NEIGHBOURS = 10
QUERIES = 1_000
SAMPLE_ROWS = 20_000  # among which neighbours are searched: 61 MB of 768 float32
SEED = 0  # of the sample

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Recall:
    """Share of nearest neighbours that are found again."""

    raw: float  # with vectors as they are, 0 to 1
    centred: float  # with the mean subtracted
    neighbours: int  # compared for each query
    queries: int  # rows whose neighbours are compared
    among: int  # rows searched, a sample of the collection


def calibrate(files: Sequence[Facts]) -> Quantization:
    """Find each dimension's range over the whole collection, in one pass."""

    def extremes(part: Facts) -> list[Vectors]:
        return [edge(block.vectors, axis=0) for block in blocks(part, []) for edge in (np.min, np.max)]

    found = np.stack([edge for piece in in_parallel(extremes, parts(files)) for edge in piece])
    low, span = found.min(axis=0), np.ptp(found, axis=0)
    return Quantization(np.where(span > 0, span / np.float32(STEPS), np.float32(1)), low)


def quantize(vectors: Vectors, quantization: Quantization) -> NDArray[np.uint8]:
    """Return (N, D) float32 as bytes, rounded to the nearest step."""
    steps = np.rint((vectors - quantization.offset) / quantization.scale)
    return np.clip(steps, 0, STEPS).astype(np.uint8)


def recall(exact: Vectors, copy: Vectors, mean: NDArray[Any]) -> Recall | None:
    """Compare the nearest neighbours, by cosine, before and after quantization; None if there are too few.

    `exact` is (N, D), a sample of the collection in random order; `mean` is that of the collection.
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
    unit = units(vectors)
    nearest = np.empty((queries, NEIGHBOURS), np.int64)
    for start in range(0, queries, 100):  # 16 MB of cosines at a time
        end = min(start + 100, queries)
        cosine = unit[start:end] @ unit.T
        cosine[np.arange(end - start), np.arange(start, end)] = -np.inf
        nearest[start:end] = np.argpartition(-cosine, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return nearest
