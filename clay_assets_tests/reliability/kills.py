"""Kills runs at random moments and compares their files: `python -m clay_assets_tests.reliability.kills`.

Each run is a fork of this process, which has already imported everything: a run starts at once, and most
kills fall into its work.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path

import dagster as dg
import pyarrow as pa

from clay_assets.embedding.progress import Progress
from clay_assets.pipeline import TileJob, process_tiles
from clay_assets.results import TileResults
from clay_assets.state.states import TileStores
from clay_assets.storage import Store
from clay_assets_tests.dagster.project import ASSETS, Project, WideEmbedder
from clay_assets_tests.reliability.tiles import mean_encoder, published, put_chips

TILES = ("27WXM", "27WXN", "27WXP", "27WXQ")
CHIPS = 8
BATCH = 2
PAUSE = 0.03
"""Seconds per batch, so that runs last long enough to be killed."""

EARLY = 0.5
"""Kills fall into this share of an undisturbed run's duration: after a few runs, little remains to be done
later."""

PER_ROUND = 6
"""Kills before a run is allowed to finish; the next round starts from empty stores."""


@dataclass
class KillReport:
    """Counts and failures.

    Attributes:
        kills: Runs killed before they finished.
        rounds: Times that all tiles were completed from empty stores.
        failures: Differences from an undisturbed run, and runs that failed.
    """

    kills: int = 0
    rounds: int = 0
    failures: list[str] = field(default_factory=list)


def kill_runs(kills: int, seed: int, folder: Path, *, through_dagster: bool = False) -> KillReport:
    """Kill runs, let the last run of each round finish, and compare its files with an undisturbed run's.

    Args:
        kills: Runs to kill.
        seed: Seed of the moments.
        folder: An empty folder.
        through_dagster: Run assets, with records in an event log, instead of the pipeline alone.
    """
    chips = Store(folder / "chips")
    for tile in TILES:
        put_chips(chips, tile, CHIPS)
    run = _dagster_run if through_dagster else _run
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    started = time.monotonic()
    if _forked(run, chips, undisturbed) != 0:
        return KillReport(failures=["the undisturbed run failed"])
    duration = time.monotonic() - started
    rng = random.Random(seed)  # noqa: S311 - no secret
    report = KillReport()
    while report.kills < kills:
        root = folder / f"round-{report.rounds}"
        root.mkdir()
        for _ in range(min(PER_ROUND, kills - report.kills)):
            report.kills += _forked(run, chips, root, kill_after=rng.uniform(0, EARLY * duration)) is None
        failures = []
        if _forked(run, chips, root) != 0:
            failures.append((root / "log").read_text()[-500:])
        failures += _differences(undisturbed, root)
        if through_dagster:
            failures += _wrong_records(root)
        report.rounds += 1
        report.failures += [f"round {report.rounds}: {failure}" for failure in failures]
    return report


def _forked(
    run: Callable[[Store, Path], None], chips: Store, root: Path, kill_after: float | None = None
) -> int | None:
    """Run in a fork; returns its exit status, or None if it was killed after `kill_after` seconds."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            with (root / "log").open("a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                run(chips, root)
                status = 0
        except BaseException:  # the fork must not continue with its parent's code
            traceback.print_exc()
        finally:
            os._exit(status)
    deadline = None if kill_after is None else time.monotonic() + kill_after
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.002)


def _run(chips: Store, root: Path) -> None:
    for name in ("work", "output"):
        (root / name).mkdir(exist_ok=True)
    job = TileJob(
        TileStores(chips, Store(root / "work"), Store(root / "output")),
        mean_encoder(root, pause=PAUSE, batch_size=BATCH),
    )
    errors: list[Exception | None] = []
    with Progress() as progress:
        process_tiles(TILES, job, lambda outcome: errors.append(outcome.error), progress)
    if errors != [None] * len(TILES):
        raise SystemExit(f"{errors}")


def _dagster_run(chips: Store, root: Path) -> None:
    home = root / "dagster"
    home.mkdir(exist_ok=True)
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        project = Project(root, instance, TILES)
        project.scene.chips = chips  # type: ignore[assignment] # its reads are not recorded
        project.encoder = mean_encoder(root, embedder=WideEmbedder(), pause=PAUSE, batch_size=BATCH)
        if not project.run().success:
            raise SystemExit("the run failed")


def _differences(undisturbed: Path, root: Path) -> list[str]:
    """Published files that differ in a bit, and results that differ in anything but their times."""
    expected, found = (published(Store(folder / "output")) for folder in (undisturbed, root))
    if list(expected) != list(found) or len(found) != len(TILES):
        return [f"published are {list(found)}, expected {list(expected)}"]
    differences = [f"{name} differs" for name in expected if expected[name] != found[name]]
    for tile in TILES:
        expected_rows, rows = (
            _rows(Store(folder / "work"), tile, undisturbed) for folder in (undisturbed, root)
        )
        if not rows.equals(expected_rows):
            differences.append(f"results of {tile} differ")
    return differences


def _rows(work: Store, tile: str, checkpoint_folder: Path) -> pa.Table:
    results = TileResults.open(work, tile, mean_encoder(checkpoint_folder).target().preferred)
    if results is None:
        return pa.table({})
    with results:
        return results.columns(["source_url", "etag", "embeddings", "reason"])


def _wrong_records(root: Path) -> list[str]:
    """Materializations that are missing, or recorded twice by the last run."""
    wrong = []
    with dg.DagsterInstance.local_temp(str(root / "dagster")) as instance:
        last_run = instance.get_runs(limit=1)[0].run_id
        for asset in ASSETS:
            key = dg.AssetKey(asset)
            missing = set(TILES) - instance.get_materialized_partitions(key)
            if missing:
                wrong.append(f"{asset} of {sorted(missing)} is not recorded")
            records = instance.fetch_materializations(key, limit=1000).records
            tiles = [record.partition_key for record in records if record.run_id == last_run]
            if len(tiles) != len(set(tiles)):
                wrong.append(f"the last run recorded {asset} twice: {sorted(map(str, tiles))}")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill the given number of runs and print the report as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=30, help="of runs of the pipeline alone")
    parser.add_argument("--dagster-kills", type=int, default=0, help="of runs of Dagster, with an event log")
    parser.add_argument("--seed", type=int, default=14)
    options = parser.parse_args(arguments)
    failures = []
    runs = {"pipeline": options.kills, "dagster": options.dagster_kills}
    for name, kills in ((name, kills) for name, kills in runs.items() if kills):
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="clay-kills-") as folder:
            report = kill_runs(kills, options.seed, Path(folder), through_dagster=name == "dagster")
        seconds = round(time.monotonic() - started)
        print(json.dumps({"runs": name, **asdict(report), "seconds": seconds}), flush=True)
        failures += report.failures
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
