"""Effects of `make` on a user's files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from clay_assets.dagster.metadata import summarize
from clay_assets.pipeline import TileOutcome
from clay_assets_tests.results.test_results import header

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile, the settings that it copies, and a user's data in the default folders."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    shutil.copytree(PROJECT / "deploy", tmp_path / "deploy")
    for name in ("data/embeddings/a.gpq", "checkpoints/b.ckpt", ".dagster/dagster.yaml", ".venv/installed"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("a user's")
    (tmp_path / ".env").write_text("CLAY_OUTPUT_URI=s3://a-user-s-bucket\nCLAY_CHECKPOINT=other.ckpt\n")
    return tmp_path


EMBED = "; ".join(
    (
        "echo DEBUG - noise",
        "echo $8: 3 of 12 chips, 1 s remaining",
        "echo INFO - tile $8: 12 embedded, 0 skipped",
    )
)
"""A shell script in place of Dagster: the output of a run of the eighth argument."""


def write_programs(folder: Path, dagster: str) -> None:
    """Write stand-ins for the programs of the demo."""
    folder.mkdir()
    for name, script in {"python": "", "clay": "", "dagster": dagster}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


def make(checkout: Path, target: str, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLAY_", "MAKE"))}
    done = subprocess.run(
        ["make", *options, target],  # noqa: S607 - the user's make
        cwd=checkout,
        env={**kept, "CLAY_LEVEL": "patch"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_clean_removes_the_environment_and_keeps_data(checkout: Path) -> None:
    make(checkout, "clean")

    remaining = sorted(str(path.relative_to(checkout)) for path in checkout.rglob("*") if path.is_file())
    assert not (checkout / ".venv").exists()
    assert {"data/embeddings/a.gpq", "checkpoints/b.ckpt", ".dagster/dagster.yaml"} <= set(remaining)


def test_the_demo_uses_the_default_folders_regardless_of_env(checkout: Path) -> None:
    programs = checkout / ".venv" / "bin"
    seen = checkout / ".dagster" / "seen"  # the environment and the `.env` that Dagster would read
    write_programs(programs, f"env >> {seen}; cat .env >> {seen} 2> /dev/null; {EMBED}")

    shown = make(checkout, "demo", "--old-file=.venv/installed").stdout

    assert shown.splitlines()[:2] == [
        "18HYB: 3 of 12 chips, 1 s remaining",
        "tile 18HYB: 12 embedded, 0 skipped",
    ]
    assert (checkout / "data" / "18HYB.log").read_text().startswith("DEBUG - noise\n")

    assert {line for line in seen.read_text().splitlines() if line.startswith("CLAY_")} == {
        f"CLAY_CHIPS_URI={checkout}/data/chips",
        f"CLAY_OUTPUT_URI={checkout}/data/embeddings",
        f"CLAY_WORK_URI={checkout}/data/work",
        f"CLAY_TILES={checkout}/tiles.txt",
        f"CLAY_CHECKPOINT={checkout}/checkpoints/clay-v0-small-untrained.ckpt",
        f"CLAY_STAC_URI={checkout}/data/stac",
        "CLAY_VERSION=1",
        "CLAY_ALLOW_UNTRAINED=1",
    }
    assert (checkout / ".dagster" / "dagster.yaml").read_text() == "a user's"


def test_the_demo_may_run_again(checkout: Path) -> None:
    current = summarize(TileOutcome("18HYB", results=header(), reused=True))
    write_programs(checkout / ".venv" / "bin", f"echo 'INFO - {current}' | sed s/18HYB/$8/")
    shown = make(checkout, "demo", "--old-file=.venv/installed").stdout
    assert shown.splitlines()[:2] == [current, current.replace("18HYB", "22JGS")]


def test_the_demo_shows_the_whole_output_of_a_run_that_fails_and_stops(checkout: Path) -> None:
    write_programs(checkout / ".venv" / "bin", "echo first; echo no such bucket >&2; exit 1")
    failed = make(checkout, "demo", "--old-file=.venv/installed", status=2)
    assert failed.stdout == "first\nno such bucket\n"
