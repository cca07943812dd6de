"""Fixtures of these tests: an instance, and a project of one tile on it."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from clay_assets_tests.dagster.project import Project


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def project(tmp_path: Path, instance: dg.DagsterInstance) -> Project:
    """A project of one tile, without chips."""
    return Project(tmp_path, instance)
