"""Effects of `make` on a user's files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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


def make(checkout: Path, target: str, *options: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLAY_", "MAKE"))}
    done = subprocess.run(
        ["make", *options, target],  # noqa: S607 - the user's make
        cwd=checkout,
        env={**kept, "CLAY_LEVEL": "patch"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_clean_removes_the_environment_and_keeps_data(checkout: Path) -> None:
    make(checkout, "clean")

    remaining = sorted(str(path.relative_to(checkout)) for path in checkout.rglob("*") if path.is_file())
    assert not (checkout / ".venv").exists()
    assert {"data/embeddings/a.gpq", "checkpoints/b.ckpt", ".dagster/dagster.yaml"} <= set(remaining)


def test_the_demo_uses_the_default_folders_regardless_of_env(checkout: Path) -> None:
    programs = checkout / ".venv" / "bin"
    programs.mkdir()
    # Instead of Python: runs only the command of the demo's step `watch TILE LOG COMMAND`.
    (programs / "python").write_text('#!/bin/sh\n[ "$3" != watch ] && exit\nshift 5\nexec "$@"\n')
    # Instead of Dagster: writes its environment and the `.env` that it would read.
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
