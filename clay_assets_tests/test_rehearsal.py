import sys
from pathlib import Path

import pytest

import rehearsal.__main__ as rehearsal
from rehearsal import servers


def test_a_missing_postgresql_is_reported_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearsal, "chromium", Path)
    monkeypatch.setattr(servers, "postgres_folders", list)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["rehearsal"])

    assert rehearsal.main() == 2
    assert capsys.readouterr().err.startswith("initdb is not installed: `apt-get install postgresql`")
