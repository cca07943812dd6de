"""The job of a run, and the outcome of each tile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.publishing.publish import Published
from clay_assets.quality.report import Part, Report
from clay_assets.results import ResultsHeader
from clay_assets.results.pieces import PieceLimits
from clay_assets.state.states import TileStores
from clay_assets.tiles.inventory import Inventory

Step = Literal["inventory", "embed", "publish"]
STEPS: tuple[Step, ...] = ("inventory", "embed", "publish")


@dataclass(frozen=True)
class TileJob:
    """The steps to do for each tile, and their settings."""

    stores: TileStores
    encoder: EncoderSettings
    version: int = 1  # of the published files
    steps: Sequence[Step] = STEPS  # the first one reads the output of an earlier run from the work store
    force: bool = False  # embed every chip again, even if its results are current
    retry_skipped: bool = False  # read chips again that earlier runs skipped
    check: bool = True  # read the outputs back and check them
    pieces: PieceLimits = field(default_factory=PieceLimits)  # when to store chips before the tile's end


@dataclass(frozen=True)
class TileOutcome:
    """The steps that a tile completed in a run, and the error that ended it.

    A step that was not requested or failed left None, as did those after the inventory of an empty tile.
    """

    tile: str
    inventory: Inventory | None = None
    results: ResultsHeader | None = None
    reused: bool = False  # whether the results were current before the run
    published: Published | None = None
    reports: Mapping[Part, Report] = field(default_factory=dict)  # of the checks, by part
    empty: bool = False  # whether the tile has no chips
    error: Exception | None = None  # None for a tile that completed all steps


class RunStopped(Exception):
    """An error that would fail every further tile of the run, or that kept a tile from being recorded."""

    def __init__(self, outcome: TileOutcome) -> None:
        super().__init__(f"{type(outcome.error).__name__}: {outcome.error}")
        self.outcome = outcome  # of the first tile that failed with it
