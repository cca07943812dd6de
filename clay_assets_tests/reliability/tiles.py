"""Small chips in a bucket and runs over them, shared by the tests of this folder."""

from dataclasses import replace
from pathlib import Path

from clay_assets.embedding.progress import Progress
from clay_assets.pipeline import TileJob, TileOutcome, process_tiles
from clay_assets.state.states import TileStores
from clay_assets.storage import Store
from clay_assets_tests.embedding.scene import MeanEncoder
from clay_assets_tests.embedding.streaming import MeanEmbedder, chip_of_value
from clay_assets_tests.geotiffs import chip_name
from clay_assets_tests.s3_server import S3Bucket

TILE = "27WXN"


def put_chips(chips: Store, tile: str, count: int, first: int = 1) -> None:
    """Store chips that differ in their pixels: GeoTIFFs of 512 x 512 pixels, about 20 kB each."""
    for number in range(first, first + count):
        chips.write(f"{tile}/2020-06-15/{chip_name(number, tile=tile)}", chip_of_value(number % 250 + 1))


def stores_of(bucket: S3Bucket, endpoint: str, name: str, *, attempts: int | None = None) -> TileStores:
    """Stores of a bucket's chips, and of results under a prefix, through an endpoint."""
    options = replace(bucket.options, endpoint_url=endpoint)
    if attempts is None:  # the default
        attempts = type(options)().max_attempts
    options = replace(options, max_attempts=attempts)
    chips, work, output = (
        Store(bucket.uri(prefix), options) for prefix in ("chips", f"{name}/work", f"{name}/output")
    )
    return TileStores(chips, work, output)


def mean_encoder(
    folder: Path, *, embedder: MeanEmbedder | None = None, pause: float = 0.0, batch_size: int = 8
) -> MeanEncoder:
    """An encoder without a network, which waits for some seconds per batch."""
    embedder = embedder or MeanEmbedder()
    embedder._pause = pause
    checkpoint = folder / "checkpoint"
    checkpoint.write_bytes(b"weights")
    return MeanEncoder(
        Store(checkpoint),
        level="",
        precision="fp32",
        device="cpu",
        batch_size=str(batch_size),
        cache=folder / "cache",
        allow_untrained=True,
        embedder=embedder,
    )


def run_tiles(
    stores: TileStores, folder: Path, *tiles: str, embedder: MeanEmbedder | None = None
) -> list[TileOutcome]:
    """Take tiles through all steps."""
    outcomes: list[TileOutcome] = []
    job = TileJob(stores, mean_encoder(folder, embedder=embedder), check=False)
    with Progress() as progress:
        process_tiles(list(tiles), job, outcomes.append, progress)
    return outcomes


def published(output: Store) -> dict[str, bytes]:
    """Published files by name."""
    return {Path(found.url).name: output.read(found) for found in output.list()}
