"""The state of a tile: which chips are in the bucket, embedded, published, and what is to do.

One definition for the schedule, the sensor, the command line and the run itself. It compares a listing of the
chips with what the results and the published file say of themselves: no chip and no vector is read.

    states.py      the states of a tile
    comparison.py  chips compared with results: what to embed, keep and drop, and why
    survey.py      the states of many tiles at once
    orphans.py     published files without a tile
    estimate.py    what they add up to: a table, and how long the rest will take

Not here: embedding and publishing, or requesting runs (`dagster.run_requests`).
"""

from clay_assets.state.states import STATES, Rate, State, TileState, TileStores, in_words
from clay_assets.state.survey import survey

__all__ = ["STATES", "Rate", "State", "TileState", "TileStores", "in_words", "survey"]
