"""`embed_tile`: the main job for one tile, from a script or a notebook, without Dagster."""

from collections import Counter
from dataclasses import dataclass
from os import PathLike

from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.embedding.progress import Progress
from clay_assets.pipeline import RunStopped, TileJob, TileOutcome, process_tiles
from clay_assets.results.outcomes import NoUsableChips
from clay_assets.state.states import TileStores
from clay_assets.storage import Store

Address = str | PathLike[str]


@dataclass(frozen=True)
class EmbeddedTile:
    """An embedded and published tile."""

    url: str  # of the GeoParquet file
    rows: int  # embeddings in it
    skipped: Counter[str]  # number of skipped chips by reason
    written: bool  # False if the file already existed, made from the same chips in the same way


def embed_tile(
    tile: str,
    *,
    chips: Address,
    checkpoint: Address,
    output: Address,
    work: Address = "data/work",
    level: str = "",
    precision: str = "auto",
    device: str = "auto",
    version: int = 1,
    force: bool = False,
    allow_untrained: bool = False,
) -> EmbeddedTile:
    """Embed the chips of a tile and write its GeoParquet file.

    Chips whose results are current are not read again. Results are kept in the same store and by the same
    rules as those of the Dagster assets. Shows a progress bar on a terminal.

    Args:
        tile: MGRS code, e.g. `27WXN`.
        chips: Folder or `s3://bucket/prefix` that holds one folder per tile.
        checkpoint: Local path or `s3://` address of the checkpoint.
        output: Folder or `s3://bucket/prefix` for the published file.
        work: Folder or `s3://bucket/prefix` for results that are kept between runs.
        level: How much of a chip one vector describes; empty: the model's own default.
        precision: `auto` (bf16 where the hardware multiplies it natively), `fp32` or `bf16`.
        device: `auto`, `cpu`, `cuda`, `cuda:0`, or several: `cuda:0,cuda:1`.
        version: Version of the published file, part of its name.
        force: Embed every chip again, even if its results are current.
        allow_untrained: Whether to embed with weights that were never trained.

    Returns:
        The published file.

    Raises:
        NoUsableChips: If the tile has no usable chips.
        StorageError: If an address cannot be read or written, or the checkpoint is missing.
        CheckpointError: If the file is not a checkpoint of a supported model.
        SettingsError: If an argument is invalid.
        UntrainedWeights: If the checkpoint's weights were never trained.
        VersionMixed: If the output holds files of this version of another checkpoint or level.
    """
    job = TileJob(
        TileStores(Store(chips), Store(work), Store(output)),
        EncoderSettings(
            Store(checkpoint),
            level=level,
            precision=precision,
            device=device,
            allow_untrained=allow_untrained,
        ),
        version=version,
        force=force,
        check=False,
    )
    outcomes: list[TileOutcome] = []
    try:
        with Progress() as progress:
            process_tiles([tile], job, outcomes.append, progress)
    except RunStopped as stopped:
        raise stopped.outcome.error or stopped from None
    (outcome,) = outcomes
    if outcome.error is not None:
        raise outcome.error
    if outcome.published is None or outcome.results is None:
        raise NoUsableChips(f"tile {tile} has no chips under {job.stores.chips.url(tile)}/")
    return EmbeddedTile(
        url=outcome.published.url,
        rows=outcome.published.rows,
        skipped=Counter(outcome.results.summary.reasons),
        written=outcome.published.written,
    )
