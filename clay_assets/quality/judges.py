"""What is good and what is bad about a tile's vectors: the thresholds, each with its reason.

They come from 417 embeddings of one tile that the Clay team published: norms from 1.73 to 2.18, which is
0.94 to 1.18 times their median; median cosine 0.973 over all pairs, at most 0.993 within a row of 21
neighbours; effective rank 21, at least 3.5 within such a row.
Not here: what was seen (`vectors`), and what Dagster is told (`chip_embeddings`).
"""

from collections.abc import Sequence

import numpy as np

from clay_assets.dagster.verdict import Verdict
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


def judge_account(facts: Sequence[VectorFacts], verdict: Verdict) -> None:
    """Embedded and skipped chips must be those of the inventory, each one or the other."""
    for look in facts:
        count = f"{look.embedded} embedded + {look.skipped} skipped, {look.chips} in the inventory"
        if look.embedded + look.skipped != look.chips:
            verdict.faults[look.tile] = count
        elif not look.same_chips:
            verdict.faults[look.tile] = f"{count}, but other chips, or in another state, or one twice"
        elif look.undecided:
            verdict.faults[look.tile] = (
                f"{count}, but {len(look.undecided)} rows with neither a vector nor a reason, or with both,"
                f" the first of {look.undecided[0]}"
            )
    verdict.numbers |= {
        "chips": sum(look.chips for look in facts),
        "embedded": sum(look.embedded for look in facts),
        "skipped": sum(look.skipped for look in facts),
    }


def judge_numbers(facts: Sequence[VectorFacts], verdict: Verdict) -> None:
    """Vectors must be finite, and of the width that model and level give."""
    for look in facts:
        bad = ~look.finite
        if look.shape != look.expected_shape:
            verdict.faults[look.tile] = f"shape {look.shape}, expected {look.expected_shape}"
        elif bad.any():
            first = look.urls[int(bad.argmax())]
            verdict.faults[look.tile] = f"{bad.sum()} vectors with NaN or infinity, the first of {first}"
    verdict.numbers |= {
        "vectors": sum(look.embedded for look in facts),
        "vectors looked at": sum(len(look.finite) for look in facts),
        "shapes": ", ".join(sorted({" x ".join(map(str, look.shape)) for look in facts})),
    }


def judge_norms(facts: Sequence[VectorFacts], verdict: Verdict) -> None:
    """Norms must be plausible in themselves and among those of their tile."""
    for look in facts:
        if not len(look.norms):
            continue
        median = float(np.median(look.norms))
        smallest, largest = np.multiply(NORM_RATIOS, median).clip(*NORMS)
        odd = look.norms[(look.norms < smallest) | (look.norms > largest)]
        if len(odd):
            verdict.faults[look.tile] = (
                f"{len(odd)} norms from {odd.min():.3g} to {odd.max():.3g},"
                f" expected {smallest:.3g} to {largest:.3g} (median {median:.3g})"
            )
    norms = np.concatenate([np.empty(0, dtype=np.float32), *(look.norms for look in facts)])
    if len(norms):
        verdict.numbers |= {
            "smallest norm": round(float(norms.min()), 4),
            "median norm": round(float(np.median(norms)), 4),
            "largest norm": round(float(norms.max()), 4),
        }


def judge_twins(facts: Sequence[VectorFacts], verdict: Verdict) -> None:
    """No two chips may have the same vector."""
    for look in facts:
        if look.twins:
            verdict.faults[look.tile] = f"{len(look.twins)} vectors twice, such as that of {look.twins[0]}"
    verdict.numbers |= {
        "vectors looked at": sum(len(look.urls) for look in facts),
        "vectors twice": sum(len(look.twins) for look in facts),
    }


def judge_variety(facts: Sequence[VectorFacts], verdict: Verdict) -> None:
    """The chips of a tile must not all look the same to the network."""
    cosines, ranks = [], []
    for look in facts:
        if look.cosine is None or look.rank is None or len(look.norms) < ENOUGH_TO_COMPARE:
            continue
        cosines.append(look.cosine)
        ranks.append(look.rank)
        if look.cosine > COLLAPSED_COSINE or look.rank < COLLAPSED_RANK:
            weights = " (untrained weights)" if look.untrained else ""
            verdict.faults[look.tile] = (
                f"median cosine {look.cosine:.6f}, effective rank {look.rank:.2f}{weights}"
            )
    verdict.numbers |= {
        "tiles compared": len(cosines),
        "tiles with too few chips to compare": len(facts) - len(cosines),
    }
    if cosines:
        verdict.numbers |= {
            "largest median cosine": round(max(cosines), 6),
            "smallest effective rank": round(min(ranks), 3),
        }
