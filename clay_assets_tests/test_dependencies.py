"""What the code imports stands in pyproject.toml, and not only among what other packages bring along."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
OURS = {"clay_model", "clay_assets", "clay_assets_tests", "benchmarks", "rehearsal", "cluster"}
WITHOUT = {"geopandas"}
"""What the packages do without where it is missing: the demo then shows its files with pyarrow."""


def imported(folder: str) -> set[str]:
    """Top-level packages that a folder's modules import, without the standard library and ourselves."""
    names: set[str] = set()
    for path in (PROJECT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OURS


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    lines: Iterable[str] = sum(
        (project["optional-dependencies"][extra] for extra in extras), project["dependencies"]
    )
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("_", "-") for line in lines}


@pytest.mark.parametrize(
    ("folder", "extras", "spared"),
    [
        ("clay_model", (), set()),
        ("clay_assets", (), WITHOUT),
        ("clay_assets_tests", ("dev", "production"), set()),
        ("rehearsal", ("dev", "production"), set()),
        ("cluster", ("dev", "cluster"), set()),
        ("benchmarks", ("dev", "bench"), set()),
    ],
)
def test_what_is_imported_is_declared(folder: str, extras: tuple[str, ...], spared: set[str]) -> None:
    brought_by = importlib.metadata.packages_distributions()
    known = declared(*extras)
    missing = {
        name
        for name in imported(folder) - spared
        if name in brought_by and not {found.lower().replace("_", "-") for found in brought_by[name]} & known
    }
    assert missing == set()
