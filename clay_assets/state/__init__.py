"""The state of a tile: what of it is in the bucket, what is embedded, what is published, and what is left.

One definition for the schedule, the sensor and the command line. It compares a fresh listing of the chips
with what the results and the published file say of themselves: no chip, no vector and no checkpoint is read.

    states.py   the states, and what a look at a tile shows
    wanted.py   what tiles are meant to be made of, and in what results differ from it
    looking.py  looking at many tiles at once

Not here: doing what is left (`embedding`, `publishing`), or asking Dagster for it (`automation`).
"""

from clay_assets.state.states import STATES, Rate, State, TileState, TileStores, in_words
from clay_assets.state.survey import look_at_tiles
from clay_assets.state.target import Wanted

__all__ = ["STATES", "Rate", "State", "TileState", "TileStores", "Wanted", "in_words", "look_at_tiles"]
