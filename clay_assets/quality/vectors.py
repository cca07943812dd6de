"""Reads a tile's results back and judges them: accounting, shape, norms, duplicates, variety.

Independent of the counts in the results' header: chips are counted from the rows, and the shape comes from
the model's name and the level.

The thresholds come from 417 embeddings of one tile that the Clay team published: norms from 1.73 to 2.18,
which is 0.94 to 1.18 times their median; median cosine 0.973 over all pairs, at most 0.993 within a row of 21
neighbours; effective rank 21, at least 3.5 within such a row.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from clay_assets.parquet import vectors
from clay_assets.results import KnownChip, Provenance, TileResults, chip_key
from clay_assets.storage import StoredObject
from clay_model.spec import model_of, width_of

# Range of a plausible norm. Trained weights give about 2; untrained ones, whose last LayerNorm has a gain of
# 1, at most the square root of the width: 16 to 36.
NORMS = (0.1, 100.0)
# Range of a plausible ratio to the tile's median norm: about five times the spread of the published tile.
NORM_RATIOS = (0.5, 2.0)

COLLAPSED_COSINE = 0.9999  # median pairwise cosine above which the network does not tell the chips apart
COLLAPSED_RANK = 2.0  # effective rank below which vectors differ along one line, such as brightness or date
ENOUGH_TO_COMPARE = 16  # minimum number of vectors whose variety is judged: a few neighbours may be similar

# Vectors read per tile: all of 21,845 chips at level mean, 81 at patch, 13 at group, spread evenly.
MAX_BYTES = 64 * 2**20
MAX_COMPARED = 128  # vectors compared with one another: 8,128 pairs

ACCOUNT = "every_chip_accounted_for"

Vectors = NDArray[np.float32]

Verdict = tuple[str, dict[str, Any]]  # the fault, "" if there is none; numbers reported in any case


class _Sample(NamedTuple):
    """The N vectors that were read."""

    urls: list[str]  # URLs of their chips, in the file's order
    finite: NDArray[np.bool_]  # (N,) whether a vector is finite throughout
    means: Vectors  # (M, D) means of the finite ones over their places, as at level mean
    duplicates: list[str]  # URLs of vectors that equal an earlier one, number by number
    undecided: list[str]  # URLs of rows with neither a vector nor a reason, or with both


def judge_vectors(tile: str, results: TileResults, inventory: Sequence[StoredObject]) -> dict[str, Verdict]:
    """Judge a tile's results; return the verdicts by the name of the check.

    Raises:
        DamagedFileError: A column can't be read.
    """
    provenance = results.header.provenance
    rows = results.chips()
    embedded = sum(row.window == 0 and row.reason is None for row in rows)
    sample = _read_sample(results, provenance.shape[-1])
    return {
        ACCOUNT: _judge_account(tile, inventory, rows, embedded, sample.undecided),
        "vectors_finite_and_of_the_right_width": _judge_numbers(provenance, embedded, sample),
        "norms_plausible": _judge_norms(np.linalg.norm(sample.means, axis=1)),
        "no_two_rows_alike": _judge_duplicates(sample),
        "not_collapsed": _judge_variety(sample.means, untrained=provenance.untrained),
    }


def _read_sample(results: TileResults, dim: int) -> _Sample:
    urls, undecided, digests = list[str](), list[str](), list[int]()
    finite, means = [np.empty(0, dtype=bool)], [np.empty((0, dim), dtype=np.float32)]
    for table in results.sample(["source_url", "embeddings", "reason"], MAX_BYTES):
        has_vector = table["embeddings"].is_valid()
        decided = pc.xor(has_vector, table["reason"].is_valid())
        undecided += table["source_url"].filter(pc.invert(decided)).to_pylist()
        piece = table.filter(has_vector)
        urls += piece["source_url"].to_pylist()
        for chunk in filter(len, piece["embeddings"].chunks):  # a row group may have no rows
            numbers = vectors(chunk)
            digests += [hash(row.tobytes()) for row in numbers]
            finite.append(np.isfinite(numbers).all(axis=1))
            means.append(numbers.reshape(len(numbers), -1, dim).mean(axis=1))
    usable = np.concatenate(finite)
    _, first = np.unique(digests, return_index=True)
    duplicates = np.delete(np.array(urls, dtype=object), first).tolist()
    return _Sample(urls, usable, np.concatenate(means)[usable], duplicates, undecided)


def _judge_account(
    tile: str, chips: Sequence[StoredObject], rows: Sequence[KnownChip], embedded: int, undecided: list[str]
) -> Verdict:
    """Check that each chip of the inventory was either embedded or skipped, and no other chip."""
    skipped = sum(row.reason is not None for row in rows)
    count = f"{embedded} embedded + {skipped} skipped, {len(chips)} in the inventory"
    got = sorted((row.key, row.etag) for row in rows if row.window == 0)
    fault = ""
    if embedded + skipped != len(chips):
        fault = count
    elif got != sorted((chip_key(chip.url, tile), chip.etag) for chip in chips):
        fault = f"{count}, but some are other chips, have changed, or occur twice"
    elif undecided:
        odd = f"{len(undecided)} rows with neither a vector nor a reason, or with both"
        fault = f"{count}, but {odd}, the first of {undecided[0]}"
    return fault, {"chips": len(chips), "embedded": embedded, "skipped": skipped}


def _judge_numbers(provenance: Provenance, embedded: int, sample: _Sample) -> Verdict:
    """Check that vectors are finite, and of the width of the model and level."""
    spec, _ = model_of(provenance.model)
    expected = spec.embedding_shape(provenance.fingerprint.level, width_of(provenance.model))
    bad = ~sample.finite
    fault = ""
    if provenance.shape != expected:
        fault = f"shape {provenance.shape}, expected {expected}"
    elif bad.any():
        fault = f"{bad.sum()} vectors with NaN or infinity, the first of {sample.urls[int(bad.argmax())]}"
    shape = " x ".join(map(str, provenance.shape))
    return fault, {"vectors": embedded, "vectors checked": len(sample.urls), "shapes": shape}


def _judge_norms(norms: Vectors) -> Verdict:
    """Check that norms are plausible by themselves and among those of their tile."""
    if not len(norms):
        return "", {}
    median = float(np.median(norms))
    low, high = np.multiply(NORM_RATIOS, median).clip(*NORMS)
    odd = norms[(norms < low) | (norms > high)]
    fault = ""
    if len(odd):
        fault = f"{len(odd)} norms from {odd.min():.3g} to {odd.max():.3g}, expected {low:.3g} to {high:.3g}"
        fault += f" (median {median:.3g})"
    numbers = {"smallest norm": norms.min(), "median norm": median, "largest norm": norms.max()}
    return fault, {name: round(float(norm), 4) for name, norm in numbers.items()}


def _judge_duplicates(sample: _Sample) -> Verdict:
    """Check that no two chips have the same vector."""
    count = len(sample.duplicates)
    fault = f"{count} duplicate vectors, such as that of {sample.duplicates[0]}" if count else ""
    return fault, {"vectors checked": len(sample.urls), "duplicate vectors": count}


def _judge_variety(means: Vectors, *, untrained: bool) -> Verdict:
    """Check that the network tells the chips of a tile apart."""
    if len(means) < ENOUGH_TO_COMPARE:
        return "", {"tiles compared": 0, "tiles with too few chips to compare": 1}
    cosine, rank = variety(means)
    fault = ""
    if cosine > COLLAPSED_COSINE or rank < COLLAPSED_RANK:
        weights = " (untrained weights)" if untrained else ""
        fault = f"median cosine {cosine:.6f}, effective rank {rank:.2f}{weights}"
    return fault, {
        "tiles compared": 1,
        "tiles with too few chips to compare": 0,
        "largest median cosine": round(cosine, 6),
        "smallest effective rank": round(rank, 3),
    }


def variety(means: Vectors) -> tuple[float, float]:
    """Return the median pairwise cosine and the effective rank of two or more vectors, (N, D).

    Of more than `MAX_COMPARED`, as many are taken, spread evenly. The rank is the exponential of the entropy
    of the centred vectors' singular values (Roy and Vetterli, 2007): how many directions they spread over.
    """
    picked = np.linspace(0, len(means) - 1, min(len(means), MAX_COMPARED)).round().astype(int)
    sample = means[picked].astype(np.float64)
    units = sample / np.maximum(np.linalg.norm(sample, axis=1, keepdims=True), 1e-30)
    cosine = float(np.median((units @ units.T)[np.triu_indices(len(units), 1)]))
    centred = sample - sample.mean(axis=0)
    # The eigenvalues of the small matrix of the rows' products are the singular values squared.
    scales = np.sqrt(np.clip(np.linalg.eigvalsh(centred @ centred.T), 0, None))
    scales = scales[scales > 1e-6 * np.linalg.norm(sample)]  # below that is float32's rounding
    if not len(scales):
        return cosine, 1.0
    shares = scales / scales.sum()
    return cosine, float(np.exp(-(shares * np.log(shares)).sum()))
