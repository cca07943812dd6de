"""Runs over several tiles, killed at random moments: `python -m clay_assets_tests.reliability.kills`.

Belongs here: killing, and what must come of it. Each run is a fork of this process, which has imported all
that a run needs and has done nothing with it: so a run begins at once, and most kills fall into its work.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pyarrow as pa

from clay_assets.embedding.progress import Progress
from clay_assets.pipeline import TileJob, process_tiles
from clay_assets.results import TileResults
from clay_assets.results.fingerprint import Fingerprint
from clay_assets.state.states import TileStores
from clay_assets.storage import Store
from clay_assets_tests.dagster.project import ASSETS, Project, WideEmbedder
from clay_assets_tests.reliability.tiles import mean_encoder, published, put_chips

TILES = ("27WXM", "27WXN", "27WXP", "27WXQ")
CHIPS = 24
PAUSE = 0.03
"""Seconds that a batch takes, so that there is something to kill."""

EARLY = 0.5
"""Kills come within this share of an undisturbed run: a later one finds little to do after the first few."""


PER_ROUND = 6
"""Kills before the run that may go to its end; the next round begins with nothing."""


@dataclass
class Killed:
    """What came of it.

    Attributes:
        kills: Runs that were killed before their end.
        rounds: Times that all tiles were made from nothing, in spite of it.
        failures: What was not as it must be.
    """

    kills: int
    rounds: int
    failures: list[str]


def kill_runs(kills: int, seed: int, folder: Path, *, through_dagster: bool = False) -> Killed:
    """Kill runs, let the last of each round end, and compare what it made.

    Args:
        kills: So many.
        seed: Of the moments.
        folder: An empty one.
        through_dagster: Whether runs are Dagster's, with records in an event log, rather than of the pipeline
            alone.
    """
    chips = Store(folder / "chips")
    for tile in TILES:
        put_chips(chips, tile, CHIPS)
    run = _dagster_run if through_dagster else _run
    calm = folder / "calm"
    calm.mkdir()
    began = time.monotonic()
    if _forked(run, chips, calm) != 0:
        return Killed(0, 0, ["the undisturbed run failed"])
    took = time.monotonic() - began
    chance = random.Random(seed)  # noqa: S311 - no secret
    done = Killed(0, 0, [])
    while done.kills < kills:
        place = folder / f"round-{done.rounds}"
        place.mkdir()
        for _ in range(min(PER_ROUND, kills - done.kills)):
            done.kills += _forked(run, chips, place, after=chance.uniform(0, EARLY * took)) is None
        if _forked(run, chips, place) != 0:
            done.failures.append(f"round {done.rounds}: {(place / 'log').read_text()[-500:]}")
        done.rounds += 1
        done.failures += [f"round {done.rounds}: {what}" for what in _differences(calm, place)]
        if through_dagster:
            done.failures += [f"round {done.rounds}: {what}" for what in _records_amiss(place)]
    return done


def _forked(
    run: Callable[[Store, Path], None], chips: Store, place: Path, after: float | None = None
) -> int | None:
    """A run in a process of its own; its exit status, or None if it was killed after so many seconds."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            with (place / "log").open("a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                run(chips, place)
                status = 0
        except BaseException:  # a fork must not go on as its parent would
            traceback.print_exc()
        finally:
            os._exit(status)
    deadline = None if after is None else time.monotonic() + after
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.002)


def _run(chips: Store, place: Path) -> None:
    stores = TileStores(chips, Store(place / "work"), Store(place / "output"))
    for made in ("work", "output"):
        (place / made).mkdir(exist_ok=True)
    encoder = mean_encoder(place, pause=PAUSE)
    outcomes: list[Exception | None] = []
    with Progress() as progress:
        process_tiles(
            TILES, TileJob(stores, encoder), lambda outcome: outcomes.append(outcome.error), progress
        )
    if outcomes != [None] * len(TILES):
        raise SystemExit(f"{outcomes}")


def _dagster_run(chips: Store, place: Path) -> None:
    home = place / "dagster"
    home.mkdir(exist_ok=True)
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        project = Project(place, instance, TILES)
        project.scene.chips = chips  # type: ignore[assignment] # a record of its reads is not needed
        project.encoder = mean_encoder(place, embedder=WideEmbedder(), pause=PAUSE)
        if not project.run().success:
            raise SystemExit("the run failed")


def _differences(calm: Path, place: Path) -> list[str]:
    """What two folders do not have alike: published files to the bit, results but for their times."""
    found = []
    wanted, got = (published(Store(folder / "output")) for folder in (calm, place))
    if list(wanted) != list(got) or len(got) != len(TILES):
        return [f"published are {list(got)}, expected {list(wanted)}"]
    found += [f"{name} differs" for name in wanted if wanted[name] != got[name]]
    for tile in TILES:
        calm_rows, rows = (_rows(Store(folder / "work"), tile, calm) for folder in (calm, place))
        if not rows.equals(calm_rows):
            found.append(f"results of {tile} differ")
    return found


def _rows(work: Store, tile: str, of: Path) -> pa.Table:
    fingerprint: Fingerprint = mean_encoder(of).target().preferred
    results = TileResults.open(work, tile, fingerprint)
    if results is None:
        return pa.table({})
    with results:
        return results.columns(["source_url", "etag", "embeddings", "reason"])


def _records_amiss(place: Path) -> list[str]:
    """Materializations that are missing, or there twice of the last run."""
    found = []
    with dg.DagsterInstance.local_temp(str(place / "dagster")) as instance:
        last = instance.get_runs(limit=1)[0].run_id
        for asset in ASSETS:
            key = dg.AssetKey(asset)
            missing = set(TILES) - instance.get_materialized_partitions(key)
            if missing:
                found.append(f"{asset} of {sorted(missing)} is not recorded")
            records = instance.fetch_materializations(key, limit=1000).records
            of_last = [record.partition_key for record in records if record.run_id == last]
            if len(of_last) != len(set(of_last)):
                found.append(f"{asset} is recorded twice by the last run: {sorted(map(str, of_last))}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill as many runs as asked, and print what came of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--dagster", action="store_true", help="runs of Dagster, with an event log")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clay-kills-") as folder:
        done = kill_runs(options.kills, options.seed, Path(folder), through_dagster=options.dagster)
    print(json.dumps({**vars(done), "seconds": round(time.monotonic() - began)}))
    return bool(done.failures)


if __name__ == "__main__":
    sys.exit(main())
