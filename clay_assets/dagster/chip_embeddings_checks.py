"""Checks of `chip_embeddings`: is each chip accounted for, and are the vectors such as a network gives?

Which checks there are and how grave a failure is. What is good and what is bad: `vector_judges`.
None blocks: that would keep a run from publishing any of its tiles, and in a backfill, where publishing is
another run, it would keep nothing from it. `publishing` itself refuses a tile that must not spread.
https://docs.dagster.io/guides/test/asset-checks
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dagster as dg

from clay_assets.dagster.object_store import ObjectStore
from clay_assets.dagster.verdict import Verdict, tiles_of_run
from clay_assets.parquet import DamagedFileError
from clay_assets.quality import judges
from clay_assets.quality.vectors import VectorFacts, look_at_vectors
from clay_assets.results import TileResults
from clay_assets.storage import Store
from clay_assets.tiles.inventory import InventoryMissing, read_inventory

ASSET = dg.AssetKey("chip_embeddings")

LOOKERS = 8
"""Tiles looked at at a time; each may hold a piece of 16 MB of vectors and a copy or two."""


@dataclass(frozen=True)
class VectorCheck:
    """One check of a tile's vectors.

    Attributes:
        name: In Dagster.
        description: In Dagster.
        judge: Finds the faults.
        severity: Of a failure.
    """

    name: str
    description: str
    judge: Callable[[Sequence[VectorFacts], Verdict], None]
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN

    @property
    def spec(self) -> dg.AssetCheckSpec:
        """As Dagster wants it."""
        return dg.AssetCheckSpec(self.name, asset=ASSET, description=self.description)


CHECKS = (
    VectorCheck(
        "every_chip_accounted_for",
        "Embedded and skipped chips are the inventory's, each once. An error: a file that lacks chips looks"
        " like any other to its readers, so publishing refuses such a tile.",
        judges.judge_account,
        dg.AssetCheckSeverity.ERROR,
    ),
    VectorCheck(
        "vectors_finite_and_of_the_right_width",
        "No NaN, no infinity, and as many numbers as the model and the level give. An error:"
        " publishing refuses such a tile.",
        judges.judge_numbers,
        dg.AssetCheckSeverity.ERROR,
    ),
    VectorCheck(
        "norms_plausible",
        "Each norm is within {} to {:.0f}, and within {} to {} times the median of its tile. A warning:"
        " unusual land may explain it.".format(*judges.NORMS, *judges.NORM_RATIOS),
        judges.judge_norms,
    ),
    VectorCheck(
        "no_two_rows_alike",
        "No two chips of a tile have the same vector, number by number: place and date go into each. A"
        " warning: mostly the same file lies in the bucket twice.",
        judges.judge_twins,
    ),
    VectorCheck(
        "not_collapsed",
        f"In a tile of {judges.ENOUGH_TO_COMPARE} chips or more the median pairwise cosine is at most"
        f" {judges.COLLAPSED_COSINE} and the effective rank at least {judges.COLLAPSED_RANK:.0f}. Both:"
        " equal vectors with rounding noise have a high rank, and vectors along one line a low cosine. A"
        " warning: open sea is alike, too.",
        judges.judge_variety,
    ),
)


def build_chip_embeddings_checks(manifest: Sequence[str]) -> dg.AssetChecksDefinition:
    """Make the checks: one pass over a tile's file serves them all.

    Args:
        manifest: All tiles; looked at where the checks are launched without a run's tiles.
    """

    @dg.multi_asset_check(
        name="chip_embeddings_checks", specs=[check.spec for check in CHECKS], can_subset=True
    )
    def chip_embeddings_checks(
        context: dg.AssetCheckExecutionContext, work: ObjectStore
    ) -> Iterator[dg.AssetCheckResult]:
        store = work.store()
        with ThreadPoolExecutor(LOOKERS, thread_name_prefix="check") as pool:
            looks = list(pool.map(lambda tile: _look(store, tile), tiles_of_run(context, manifest)))
        facts = [look for look in looks if isinstance(look, VectorFacts)]
        missing = {look.tile: look.why for look in looks if isinstance(look, NotLookedAt)}
        damaged = {look.tile: look.why for look in looks if isinstance(look, NotLookedAt) and look.is_fault}
        for check in CHECKS:
            if check.spec.key in context.selected_asset_check_keys:
                verdict = Verdict(check.spec.key, check.severity, len(facts), missing)
                if check.judge is judges.judge_account:  # what cannot be read accounts for no chip
                    verdict.faults |= damaged
                check.judge(facts, verdict)
                yield verdict.result()

    return chip_embeddings_checks


@dataclass(frozen=True)
class NotLookedAt:
    """A tile without results that can be read.

    Attributes:
        tile: MGRS code.
        why: It has none, reading on from the tile's code.
        is_fault: Whether they are there, but damaged; else the asset itself failed on the tile, and says why.
    """

    tile: str
    why: str
    is_fault: bool = False


def _look(work: Store, tile: str) -> VectorFacts | NotLookedAt:
    results = TileResults.open(work, tile)
    if results is None:
        return NotLookedAt(tile, "has no results")
    with results:
        try:
            return look_at_vectors(tile, results, read_inventory(work, tile))
        except InventoryMissing as error:
            return NotLookedAt(tile, str(error))
        except DamagedFileError:
            return NotLookedAt(tile, "has damaged results: embed it again with force", is_fault=True)
