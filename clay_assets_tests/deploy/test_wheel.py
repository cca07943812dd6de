"""The wheel, installed into an environment without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77", reason="pyproject.toml needs setuptools 77 or newer")

PROJECT = Path(__file__).resolve().parents[2]
LOAD = """
import clay_assets.definitions, clay_model, dagster
dagster.Definitions.validate_loadable(clay_assets.definitions.defs)
print(clay_assets.__file__, clay_model.__file__, sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, because a build in the checkout packs files of earlier builds too."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    for name in ("clay_assets", "clay_assets_tests", "clay_model"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    pip("wheel", "--no-build-isolation", "--wheel-dir", wheels, source)
    (built,) = wheels.iterdir()
    return built


def test_the_wheel_has_every_file_of_both_packages_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {
        str(path.relative_to(PROJECT))
        for package in ("clay_assets", "clay_model")
        for path in (PROJECT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"clay_assets/py.typed", "clay_model/py.typed"} <= packed


def test_the_installed_wheel_runs_and_its_definitions_load_without_the_checkout(
    wheel: Path, tmp_path: Path
) -> None:
    site, folder = tmp_path / "site", tmp_path / "folder"
    pip("install", "--target", site, wheel)
    folder.mkdir()
    (folder / "tiles.txt").write_text("27WXN\n")

    assert "similar" in run(folder, site, site / "bin" / "clay", "--help")
    loaded = run(folder, site, sys.executable, "-c", LOAD).splitlines()
    assert loaded == [str(site / "clay_assets" / "__init__.py"), str(site / "clay_model" / "__init__.py")]


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments, "--no-deps"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run(folder: Path, site: Path, *command: str | Path) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLAY_", "DAGSTER_"))}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**kept, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
