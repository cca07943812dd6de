"""The state of a tile: which chips the bucket holds, which are embedded and published, what a run would do.

The schedule, the sensor, the command line and the run itself share these definitions. They compare a listing
of the chips with the headers of the results and of the published file; no chip and no vector is read.

    states.py      the states of a tile; texts about many: a table, and how long the rest will take
    comparison.py  compares chips with results: which to embed, keep and drop, and why
    survey.py      determines the states of many tiles; finds published files without a tile

Not here: embedding and publishing, or requesting runs (`dagster.automation`).
"""

from clay_assets.state.states import STATES, Rate, State, TileState, TileStores, summarize
from clay_assets.state.survey import SurveyCache, survey

__all__ = ["STATES", "Rate", "State", "SurveyCache", "TileState", "TileStores", "summarize", "survey"]
