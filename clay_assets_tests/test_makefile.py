"""What `make` does to the files of the one who calls it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile, the settings that it copies, and a user's data at the default places."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    shutil.copytree(PROJECT / "deploy", tmp_path / "deploy")
    for name in ("data/embeddings/a.gpq", "checkpoints/b.ckpt", ".dagster/dagster.yaml", ".venv/installed"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("a user's")
    (tmp_path / ".env").write_text("CLAY_OUTPUT_URI=s3://a-user-s-bucket\nCLAY_CHECKPOINT=other.ckpt\n")
    return tmp_path


def make(checkout: Path, target: str, *options: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLAY_", "MAKE"))}
    done = subprocess.run(
        ["make", *options, target],  # noqa: S607 - whichever make a user has
        cwd=checkout,
        env={**kept, "CLAY_LEVEL": "patch"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_clean_removes_the_environment_and_no_data(checkout: Path) -> None:
    make(checkout, "clean")

    left = sorted(str(path.relative_to(checkout)) for path in checkout.rglob("*") if path.is_file())
    assert not (checkout / ".venv").exists()
    assert {"data/embeddings/a.gpq", "checkpoints/b.ckpt", ".dagster/dagster.yaml"} <= set(left)


def test_the_demo_starts_dagster_at_the_default_places_whatever_env_says(checkout: Path) -> None:
    programs = checkout / ".venv" / "bin"
    programs.mkdir()
    # In place of Python: of the demo's steps only `watch TILE LOG COMMAND`, without the watching.
    (programs / "python").write_text('#!/bin/sh\n[ "$3" != watch ] && exit\nshift 5\nexec "$@"\n')
    # In place of Dagster: says where it is and what it would read there, as Dagster does.
    seen = checkout / ".dagster" / "seen"
    script = f"#!/bin/sh\nenv >> {seen}\ncat .env >> {seen} 2> /dev/null || true\n"
    (programs / "dagster").write_text(script)
    (programs / "clay").write_text("#!/bin/sh\n")
    for path in programs.iterdir():
        path.chmod(0o755)

    make(checkout, "demo", "--old-file=.venv/installed")

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
