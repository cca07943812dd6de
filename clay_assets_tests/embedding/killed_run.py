"""A run in its own process, slow enough to be killed: `python -m …killed_run ROOT LEVEL PAUSE CHIPS`.

The scene's stores are below ROOT; each batch of two chips takes PAUSE seconds; a piece holds CHIPS chips.
"""

import sys
from pathlib import Path

from clay_assets.embedding.progress import Progress
from clay_assets.pipeline import TileJob, process_tiles
from clay_assets.results.pieces import PieceLimits
from clay_assets_tests.embedding.scene import Scene
from clay_assets_tests.embedding.streaming import MeanEmbedder


def main(root: Path, level: str, pause: float, chips: int) -> None:
    """Embed and publish tile 27WXN."""
    scene = Scene(root)
    encoder = scene.encoder(level=level, embedder=MeanEmbedder(pause=pause))
    job = TileJob(scene.stores, encoder, check=False, pieces=PieceLimits(chips=chips))
    with Progress() as progress:
        process_tiles(["27WXN"], job, lambda outcome: print(outcome.error or "done"), progress)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
