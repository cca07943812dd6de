import os
import pty
import sys
import termios
from contextlib import suppress

import pytest

from clay_assets.embedding.progress import Progress
from clay_assets.results.outcomes import Skipped
from clay_assets_tests.embedding.streaming import sources


def skip() -> Skipped:
    return Skipped(sources("27WXN", 1)[0], "size", "too small")


def test_log_gets_one_line_every_few_seconds_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("clay_assets.embedding.progress.time.monotonic", lambda: now)
    with Progress() as progress:
        progress.expect(30)
        progress.expect(10)
        progress.begin("27WXN")
        for _ in range(20):
            now += 0.5
            progress.count(skip())

    lines = capsys.readouterr().err.splitlines()

    assert lines == [
        "27WXN: 10 of 40 chips, 10 skipped, 2.0 chips/s, 15 s remaining",
        "27WXN: 20 of 40 chips, 20 skipped, 2.0 chips/s, 10 s remaining",
        "27WXN: 20 of 40 chips, 20 skipped, 2.0 chips/s, 10 s remaining",
    ]


def test_run_without_chips_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.expect(0)

    assert capsys.readouterr().err == ""


def test_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress() as progress:
            progress.expect(3)
            progress.expect(1)
            progress.begin("27WXN")
            for _ in range(4):
                progress.count(skip())
    seen = b""
    with suppress(OSError):  # raised at the end of the terminal's output
        while part := os.read(ours, 65_536):
            seen += part
    os.close(ours)

    assert "27WXN: 100%" in seen.decode()
    assert "4/4" in seen.decode()
