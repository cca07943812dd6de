"""Runs killed at random moments: later runs make the files of an undisturbed run."""

import json
import subprocess
import sys

KILLS, DAGSTER_KILLS = 6, 2


def test_runs_killed_at_random_moments_end_with_the_files_of_an_undisturbed_one() -> None:
    kills = ["--kills", str(KILLS), "--dagster-kills", str(DAGSTER_KILLS)]
    command = [sys.executable, "-m", "clay_assets_tests.reliability.kills", *kills]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["failures"] for report in reports] == [[], []]
    assert [report["kills"] for report in reports] == [KILLS, DAGSTER_KILLS]
