"""Rows of many files in an order of one's own, while only a few files are held."""

import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clay_assets.export.layout import Placed
from clay_assets.reading.embeddings import ALONGSIDE
from clay_assets.reading.facts import Facts
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import Block, blocks, tasks

HELD_BYTES = 256 * 2**20
"""Of decoded files: neighbours on the curve are of the same few tiles."""


class Gatherer:
    """Takes rows from a collection's files."""

    def __init__(self, files: Sequence[SourceFile], facts: Sequence[Facts], placed: Placed) -> None:
        """Remember the files.

        Args:
            files: Of the collection.
            facts: Of each.
            placed: Their rows.
        """
        self._files, self._facts, self._placed = files, facts, placed
        largest = max(fact.rows * (4 * fact.width + 256) for fact in facts)  # 256: URL, outline, date
        self._whole = functools.lru_cache(max(2, HELD_BYTES // largest))(self._read)

    def take(self, rows: NDArray[np.int64]) -> Block:
        """Rows in the order asked for.

        Args:
            rows: Indices into the placed rows.
        """
        wanted = self._placed.file[rows]
        pieces, vectors, places = [], [], []
        for index in np.unique(wanted):
            there = np.flatnonzero(wanted == index)
            block = self._whole(int(index))
            local = self._placed.row[rows[there]]
            pieces.append(block.rows.take(pa.array(local)))
            vectors.append(block.vectors[local])
            places.append(there)
        back = np.argsort(np.concatenate(places))
        table = pa.concat_tables(pieces, promote_options="permissive").take(pa.array(back))
        return Block(table, np.concatenate(vectors)[back])

    def _read(self, index: int) -> Block:
        found = [
            block
            for task in tasks([self._files[index]], [self._facts[index]])
            for block in blocks(task, ALONGSIDE)
        ]
        rows = pa.concat_tables([block.rows for block in found])
        return Block(rows, np.concatenate([block.vectors for block in found]))
