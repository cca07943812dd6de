"""What a tile's results show when they are read again: counts, norms, duplicates, variety.

Independent of what was recorded when they were made: chips and counts come from the file's footer and rows,
the shape from the model's name and the level. Not here: what is good and what is bad (`judges`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from clay_assets.parquet import vectors
from clay_assets.results import Provenance, TileResults
from clay_assets.results.fingerprint import chip_key
from clay_assets.storage import StoredObject
from clay_model.spec import model_of, width_of

MAX_BYTES = 64 * 2**20
"""Of vectors read a tile: all of 21,845 chips at level mean, 81 at patch, 13 at group, spread evenly."""

MAX_COMPARED = 128
"""Chips compared with one another: 8,128 pairs."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class VectorFacts:
    """What was seen.

    Attributes:
        tile: MGRS code.
        untrained: Whether the checkpoint says that its weights were never trained.
        chips: In the inventory.
        embedded: Chips with vectors.
        skipped: Chips with a reason.
        same_chips: Whether the rows are the inventory's chips, each once and with its ETag.
        undecided: URLs of rows with neither a vector nor a reason, or with both, among those read.
        shape: Of one embedding, as the file has it.
        expected_shape: As the model and the level ask for.
        urls: Of the chips whose vectors were read, in the file's order.
        finite: (N,) whether each of these vectors is finite throughout.
        norms: Of the finite ones' means over their places, (M,): what level mean would have.
        duplicates: URLs of the vectors that equal an earlier one, number by number.
        cosine: Median over pairs of chips; None for fewer than two.
        rank: Effective rank of the centred vectors; None for fewer than two.
    """

    tile: str
    untrained: bool
    chips: int
    embedded: int
    skipped: int
    same_chips: bool
    undecided: list[str]
    shape: tuple[int, ...]
    expected_shape: tuple[int, ...]
    urls: list[str]
    finite: NDArray[np.bool_]
    norms: Vectors
    duplicates: list[str]
    cosine: float | None
    rank: float | None


def read_facts(tile: str, results: TileResults, inventory: Sequence[StoredObject]) -> VectorFacts:
    """Read a tile's vectors, piece by piece: `MAX_BYTES` of them at most, 16 MB at a time.

    Args:
        tile: MGRS code.
        results: Of the tile.
        inventory: Of the tile.
    """
    making = results.header.provenance
    rows_of_chips = results.chips()
    urls: list[str] = []
    finite: list[NDArray[np.bool_]] = [np.empty(0, dtype=bool)]
    means: list[Vectors] = [np.empty((0, making.shape[-1]), dtype=np.float32)]
    words: list[int] = []
    undecided: list[str] = []
    for table in results.sample(["source_url", "embeddings", "reason"], MAX_BYTES):
        has_vector = table["embeddings"].is_valid()
        either = pc.xor(has_vector, table["reason"].is_valid())
        undecided += table["source_url"].filter(pc.invert(either)).to_pylist()
        piece = table.filter(has_vector).combine_chunks()
        if not piece.num_rows:
            continue
        rows = vectors(piece["embeddings"].chunk(0))
        urls += piece["source_url"].to_pylist()
        finite.append(np.isfinite(rows).all(axis=1))
        means.append(rows.reshape(len(rows), -1, making.shape[-1]).mean(axis=1))
        words += [hash(row.tobytes()) for row in rows]
    usable = np.concatenate(finite)
    summaries = np.concatenate(means)[usable]
    cosine, rank = variety(summaries)
    return VectorFacts(
        tile=tile,
        untrained=making.untrained,
        chips=len(inventory),
        embedded=sum(row.window == 0 and row.reason is None for row in rows_of_chips),
        skipped=sum(row.reason is not None for row in rows_of_chips),
        same_chips=sorted((row.key, row.etag) for row in rows_of_chips if row.window == 0)
        == sorted((chip_key(chip.url, tile), chip.etag) for chip in inventory),
        undecided=undecided,
        shape=making.shape,
        expected_shape=expected_shape(making),
        urls=urls,
        finite=usable,
        norms=np.linalg.norm(summaries, axis=1),
        duplicates=_duplicates(urls, words),
        cosine=cosine,
        rank=rank,
    )


def expected_shape(making: Provenance) -> tuple[int, ...]:
    """Shape of an embedding of this model at this level."""
    spec, _ = model_of(making.model)
    return spec.embedding_shape(making.fingerprint.level, width_of(making.model))


def variety(summaries: Vectors) -> tuple[float | None, float | None]:
    """Median pairwise cosine, and effective rank, of vectors.

    The rank is the exponential of the entropy of the centred vectors' singular values (Roy and Vetterli,
    2007): how many directions they spread over.

    Args:
        summaries: (N, D); of more than `MAX_COMPARED`, as many are taken, spread evenly.
    """
    if len(summaries) < 2:
        return None, None
    picked = np.linspace(0, len(summaries) - 1, min(len(summaries), MAX_COMPARED)).round().astype(int)
    sample = summaries[picked].astype(np.float64)
    units = sample / np.maximum(np.linalg.norm(sample, axis=1, keepdims=True), 1e-30)
    pairs = (units @ units.T)[np.triu_indices(len(units), 1)]
    centred = sample - sample.mean(axis=0)
    # The singular values of a tall matrix, by way of the small one of its rows' products.
    scales = np.sqrt(np.clip(np.linalg.eigvalsh(centred @ centred.T), 0, None))
    scales = scales[scales > 1e-6 * np.linalg.norm(sample)]  # below that is float32's rounding
    if not len(scales):
        return float(np.median(pairs)), 1.0
    shares = scales / scales.sum()
    return float(np.median(pairs)), float(np.exp(-(shares * np.log(shares)).sum()))


def _duplicates(urls: list[str], words: list[int]) -> list[str]:
    seen: Counter[int] = Counter()
    duplicates = []
    for url, word in zip(urls, words, strict=True):
        seen[word] += 1
        if seen[word] > 1:
            duplicates.append(url)
    return duplicates
