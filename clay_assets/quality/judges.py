"""What is good and what is bad about a tile's vectors: the thresholds, each with its reason.

They come from 417 embeddings of one tile that the Clay team published: norms from 1.73 to 2.18, which is
0.94 to 1.18 times their median; median cosine 0.973 over all pairs, at most 0.993 within a row of 21
neighbours; effective rank 21, at least 3.5 within such a row.
Not here: what was seen (`vectors`), and how it is reported (`report`).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from clay_assets.quality.vectors import VectorFacts

NORMS = (0.1, 100.0)
"""Of any vector. Trained weights give about 2; untrained ones, whose last LayerNorm has a gain of 1, at most
the square root of the width: 16 to 36. Less is a network that says nothing, more one that overflows."""

NORM_RATIOS = (0.5, 2.0)
"""To the tile's median: some five times the spread of the published tile, on either side."""

COLLAPSED_COSINE = 0.9999
"""Median over pairs above which all chips look the same to the network."""

COLLAPSED_RANK = 2.0
"""Effective rank below which vectors differ along one line only: by brightness, say, or by date."""

ENOUGH_TO_COMPARE = 16
"""Chips below which nothing is said of their variety: a handful of neighbours may be alike."""

Verdict = tuple[str, dict[str, Any]]
"""What is wrong with a tile, "" if nothing is, and numbers that are reported in any case."""


def judge_account(facts: VectorFacts) -> Verdict:
    """Embedded and skipped chips must be those of the inventory, each one or the other."""
    count = f"{facts.embedded} embedded + {facts.skipped} skipped, {facts.chips} in the inventory"
    fault = ""
    if facts.embedded + facts.skipped != facts.chips:
        fault = count
    elif not facts.same_chips:
        fault = f"{count}, but other chips, or in another state, or one twice"
    elif facts.undecided:
        fault = (
            f"{count}, but {len(facts.undecided)} rows with neither a vector nor a reason, or with both,"
            f" the first of {facts.undecided[0]}"
        )
    return fault, {"chips": facts.chips, "embedded": facts.embedded, "skipped": facts.skipped}


def judge_numbers(facts: VectorFacts) -> Verdict:
    """Vectors must be finite, and of the width that model and level give."""
    bad = ~facts.finite
    fault = ""
    if facts.shape != facts.expected_shape:
        fault = f"shape {facts.shape}, expected {facts.expected_shape}"
    elif bad.any():
        first = facts.urls[int(bad.argmax())]
        fault = f"{bad.sum()} vectors with NaN or infinity, the first of {first}"
    return fault, {
        "vectors": facts.embedded,
        "vectors checked": len(facts.finite),
        "shapes": " x ".join(map(str, facts.shape)),
    }


def judge_norms(facts: VectorFacts) -> Verdict:
    """Norms must be plausible in themselves and among those of their tile."""
    if not len(facts.norms):
        return "", {}
    median = float(np.median(facts.norms))
    smallest, largest = np.multiply(NORM_RATIOS, median).clip(*NORMS)
    odd = facts.norms[(facts.norms < smallest) | (facts.norms > largest)]
    fault = (
        f"{len(odd)} norms from {odd.min():.3g} to {odd.max():.3g},"
        f" expected {smallest:.3g} to {largest:.3g} (median {median:.3g})"
        if len(odd)
        else ""
    )
    return fault, {
        "smallest norm": round(float(facts.norms.min()), 4),
        "median norm": round(median, 4),
        "largest norm": round(float(facts.norms.max()), 4),
    }


def judge_duplicates(facts: VectorFacts) -> Verdict:
    """No two chips may have the same vector."""
    count = len(facts.duplicates)
    fault = f"{count} duplicate vectors, such as that of {facts.duplicates[0]}" if count else ""
    return fault, {"vectors checked": len(facts.urls), "duplicate vectors": count}


def judge_variety(facts: VectorFacts) -> Verdict:
    """The chips of a tile must not all look the same to the network."""
    if facts.cosine is None or facts.rank is None or len(facts.norms) < ENOUGH_TO_COMPARE:
        return "", {"tiles compared": 0, "tiles with too few chips to compare": 1}
    fault = ""
    if facts.cosine > COLLAPSED_COSINE or facts.rank < COLLAPSED_RANK:
        weights = " (untrained weights)" if facts.untrained else ""
        fault = f"median cosine {facts.cosine:.6f}, effective rank {facts.rank:.2f}{weights}"
    return fault, {
        "tiles compared": 1,
        "tiles with too few chips to compare": 0,
        "largest median cosine": round(facts.cosine, 6),
        "smallest effective rank": round(facts.rank, 3),
    }


JUDGES: Mapping[str, Callable[[VectorFacts], Verdict]] = MappingProxyType(
    {
        "every_chip_accounted_for": judge_account,
        "vectors_finite_and_of_the_right_width": judge_numbers,
        "norms_plausible": judge_norms,
        "no_two_rows_alike": judge_duplicates,
        "not_collapsed": judge_variety,
    }
)
"""By the name of the check."""
