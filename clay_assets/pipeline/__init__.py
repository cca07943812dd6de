"""The main job: each tile is listed, embedded and published before the next one is done.

    list and plan, up to 64 tiles ahead ──► one chip stream for all tiles ──► results, tile by tile
                                                                              └──► publish, in parallel

    job.py      the job and its outcomes: the steps to do for each tile, and the results
    planner.py  lists and plans tiles ahead of their turn
    run.py      `process_tiles`: the order of the steps, and the effect of a failing tile

Not here: the steps themselves (`tiles.inventory`, `embedding`, `publishing`, `quality`).
"""

from clay_assets.pipeline.job import STEPS, RunStopped, Step, TileJob, TileOutcome
from clay_assets.pipeline.run import examine, process_tiles

__all__ = ["STEPS", "RunStopped", "Step", "TileJob", "TileOutcome", "examine", "process_tiles"]
