"""The job of a run, and the outcome of each tile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.publishing.publish import Published
from clay_assets.quality.report import Part, Report
from clay_assets.results import ResultsHeader
from clay_assets.results.pieces import PieceLimits
from clay_assets.results.target import Target
from clay_assets.state.states import TileStores
from clay_assets.tiles.inventory import Inventory

Step = Literal["inventory", "embed", "publish"]
STEPS: tuple[Step, ...] = ("inventory", "embed", "publish")


@dataclass(frozen=True)
class TileJob:
    """The steps to do for each tile, and their settings.

    Attributes:
        stores: Chips, work and published files.
        encoder: The encoder's settings.
        version: Version of the published files.
        steps: Steps to do; the first one reads the output of an earlier run from the work store.
        force: Embed every chip again, even if its results are current.
        retry_skipped: Read chips again that earlier runs skipped.
        check: Whether to read the outputs back and check them.
        pieces: When to store a tile's finished chips before its end.
    """

    stores: TileStores
    encoder: EncoderSettings
    version: int = 1
    steps: Sequence[Step] = STEPS
    force: bool = False
    retry_skipped: bool = False
    check: bool = True
    pieces: PieceLimits = field(default_factory=PieceLimits)

    def target(self) -> Target | None:
        """Return the target of the settings; None if no step needs it.

        Only a job that embeds downloads the checkpoint.

        Raises:
            StorageError, SettingsError, UntrainedWeights: As `EncoderSettings.target`.
        """
        if "embed" in self.steps:
            return self.encoder.target()
        if "publish" in self.steps:
            return self.encoder.known_target(self.stores.work) or self.encoder.target()
        return None


@dataclass(frozen=True)
class TileOutcome:
    """The steps that a tile completed in a run, and the error that ended it.

    Attributes:
        tile: MGRS code.
        inventory: The listing; None if the step was not requested or failed.
        results: Header of the results; None if the step was not requested or failed, or the tile is empty.
        reused: Whether the results were current before the run.
        published: The published file; None if the step was not requested or failed, or the tile is empty.
        reports: Findings of the checks, by the part checked.
        empty: Whether the tile has no chips.
        error: The error; None for a tile that completed all steps.
    """

    tile: str
    inventory: Inventory | None = None
    results: ResultsHeader | None = None
    reused: bool = False
    published: Published | None = None
    reports: Mapping[Part, Report] = field(default_factory=dict)
    empty: bool = False
    error: Exception | None = None


class RunStopped(Exception):
    """An error that would fail every further tile of the run, or that kept a tile from being recorded.

    Attributes:
        outcome: Outcome of the first tile that failed with it.
    """

    def __init__(self, outcome: TileOutcome) -> None:
        super().__init__(f"{type(outcome.error).__name__}: {outcome.error}")
        self.outcome = outcome
