"""One of two concurrent runs: `python -m clay_assets_tests.two_runs ADDRESS CHECKPOINT FORCE TILE…`.

Waits for a file `go` next to the checkpoint, so that both start together; prints a line per tile.
"""

import sys
import time
from pathlib import Path

from clay_assets.embedding.progress import Progress
from clay_assets.pipeline import TileJob, TileOutcome, process_tiles
from clay_assets.results.pieces import PieceLimits
from clay_assets.state.states import TileStores
from clay_assets.storage import Store
from clay_assets_tests.embedding.scene import MeanEncoder
from clay_assets_tests.embedding.streaming import MeanEmbedder


def main(address: str, checkpoint: Path, force: bool, tiles: list[str]) -> None:
    """Embed and publish tiles."""
    stores = TileStores(*(Store(f"{address}/{name}") for name in ("chips", "work", "output")))
    embedder = MeanEmbedder(pause=0.02)
    encoder = MeanEncoder(
        Store(checkpoint), precision="fp32", device="cpu", batch_size="2", embedder=embedder
    )
    job = TileJob(stores, encoder, force=force, pieces=PieceLimits(chips=3))

    def record(outcome: TileOutcome) -> None:
        print(outcome.tile, repr(outcome.error), flush=True)

    print("ready", flush=True)
    while not checkpoint.with_name("go").exists():
        time.sleep(0.01)
    with Progress() as progress:
        process_tiles(tiles, job, record, progress)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "force", sys.argv[4:])
