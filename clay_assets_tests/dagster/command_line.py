"""Materializes the assets as the settings configure them, by the command line or in this process."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from clay_assets.dagster import build_defs
from clay_assets.settings import Settings

OURS = ("CLAY_", "AWS_", "DAGSTER_")


@dataclass(frozen=True)
class Finished:
    """A finished command.

    Attributes:
        status: Exit status.
        output: Its stdout and stderr.
    """

    status: int
    output: str


def clean_environment(home: Path) -> dict[str, str]:
    """This process's environment without settings, and with a cache in `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**kept, "XDG_CACHE_HOME": str(home / "cache")}


def materialize(
    home: Path, tiles: Sequence[str], settings: Mapping[str, str], *selection: str, timeout: float = 240
) -> Finished:
    """Materialize all assets, without DAGSTER_HOME.

    Args:
        home: Working directory; the manifest is written there.
        tiles: The manifest.
        settings: CLAY_ and AWS_ variables.
        *selection: `--partition` or `--partition-range` and its value.
        timeout: Seconds after which the command has failed.
    """
    (home / "tiles.txt").write_text("\n".join(tiles) + "\n")
    program = str(Path(sys.executable).parent / "dagster")
    command = [program, "asset", "materialize", "-m", "clay_assets.definitions", "--select", "*", *selection]
    done = subprocess.run(
        command,
        cwd=home,
        env={**clean_environment(home), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Finished(done.returncode, done.stdout)


def materialize_here(settings: Mapping[str, str], tile: str) -> dg.ExecuteInProcessResult:
    """Materialize all assets of a tile in this process, which saves the start of a process (5 s).

    Args:
        settings: CLAY_ variables; the working directory and the environment are the caller's.
        tile: The manifest, and the partition.
    """
    Path("tiles.txt").write_text(tile + "\n")
    job = build_defs(settings=Settings.from_environment(settings)).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(instance=instance, partition_key=tile, raise_on_error=False)
