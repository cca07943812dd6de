"""Runs that are killed at any moment: the next ones make what an undisturbed one would have."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("kills", "how"), [(6, []), (2, ["--dagster"])], ids=["the pipeline", "Dagster"])
def test_runs_killed_at_random_moments_end_with_the_files_of_an_undisturbed_one(
    kills: int, how: list[str]
) -> None:
    command = [sys.executable, "-m", "clay_assets_tests.reliability.kills", "--kills", str(kills), *how]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failures"] == []
    assert found["kills"] >= kills
