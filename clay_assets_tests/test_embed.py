"""`embed_tile`: its results and errors, equality with the assets, and independence of Dagster."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest

import clay_assets
from clay_assets import embed_tile
from clay_assets.dagster import build_defs
from clay_assets.publishing.validation import validate
from clay_assets.results.outcomes import NoUsableChips
from clay_assets.settings import Settings, SettingsError
from clay_assets.storage import FolderMissing, StorageError
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels, good_chip

TILE = "27WXN"

WITHOUT_DAGSTER = """
import importlib, importlib.abc, pkgutil, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("dagster", "dagster_aws"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Refuse())
import clay_assets
names = [found.name for found in pkgutil.walk_packages(
    clay_assets.__path__, "clay_assets.", onerror=lambda name: None
)]
core = [name for name in names if not name.startswith(("clay_assets.dagster", "clay_assets.definitions"))]
for name in core:
    if not name.endswith("__main__"):  # it would run
        importlib.import_module(name)
print(len(core))
"""


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    """A folder with two chips of a tile and a text file named like one."""
    folder = tmp_path / "chips" / TILE / "2020-06-15"
    folder.mkdir(parents=True)
    (folder / chip_name(1)).write_bytes(good_chip())
    (folder / chip_name(2)).write_bytes(chip_bytes(chip_pixels() + 50))
    (folder / chip_name(3)).write_bytes(b"Not Found")
    return tmp_path / "chips"


def embed(chips: Path, checkpoint: Path, tile: str = TILE, **options: object) -> clay_assets.EmbeddedTile:
    root = chips.parent
    places = {"output": root / "output", "work": root / "work"}
    settings = {"device": "cpu", "precision": "fp32"}
    return embed_tile(tile, chips=chips, checkpoint=checkpoint, **(places | settings | options))  # type: ignore[arg-type]


def test_a_tile_returns_its_file_its_rows_and_its_skips(chips: Path, tiny_checkpoint: Path) -> None:
    done = embed(chips, tiny_checkpoint)

    path = Path(done.url)
    assert path == chips.parent / "output" / f"{TILE}_20200615_20200615_v001.gpq"
    assert validate(path, name=path.name) == []
    assert (done.rows, done.skipped, done.written) == (2, Counter(format=1), True)
    assert pq.read_metadata(path).num_rows == 2


def test_a_current_tile_is_not_written_again_unless_forced_and_each_version_has_its_file(
    chips: Path, tiny_checkpoint: Path
) -> None:
    first = embed(chips, tiny_checkpoint)
    results = chips.parent / "work" / "chip_embeddings"
    made = [path.stat().st_mtime_ns for path in sorted(results.rglob("*.parquet"))]

    again = embed(chips, tiny_checkpoint)
    assert (again.written, again.url, again.skipped) == (False, first.url, first.skipped)
    assert [path.stat().st_mtime_ns for path in sorted(results.rglob("*.parquet"))] == made

    other = embed(chips, tiny_checkpoint, version=7)
    assert other.url.endswith("_v007.gpq")

    embed(chips, tiny_checkpoint, force=True)
    assert [path.stat().st_mtime_ns for path in sorted(results.rglob("*.parquet"))] != made


def test_the_assets_make_the_same_vectors(
    chips: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = embed(chips, tiny_checkpoint)
    root = chips.parent
    (root / "tiles.txt").write_text(f"{TILE}\n")
    settings = {
        "CLAY_TILES": str(root / "tiles.txt"),
        "CLAY_CHIPS_URI": str(chips),
        "CLAY_CHECKPOINT": str(tiny_checkpoint),
        "CLAY_WORK_URI": str(root / "work of assets"),
        "CLAY_OUTPUT_URI": str(root / "output of assets"),
        "CLAY_DEVICE": "cpu",
        "CLAY_PRECISION": "fp32",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(root)
    job = build_defs(settings=Settings.from_environment(settings)).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, partition_key=TILE).success

    (path,) = (root / "output of assets").glob("*.gpq")
    assert path.name == Path(done.url).name
    ours, theirs = pq.read_table(done.url), pq.read_table(path)
    assert ours.drop_columns("embeddings").equals(theirs.drop_columns("embeddings"))
    vectors = [np.asarray(table["embeddings"].to_pylist(), np.float32) for table in (ours, theirs)]
    assert vectors[0].tobytes() == vectors[1].tobytes()


def test_another_version_is_published_without_embedding_again(
    chips: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = embed(chips, tiny_checkpoint)
    monkeypatch.setattr("clay_assets.embedding.encoders._load", None)  # no network is loaded

    assert embed(chips, tiny_checkpoint, version=2).rows == done.rows


def test_an_empty_tile_has_no_usable_chips(chips: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(NoUsableChips, match=f"tile 27WXM has no chips under {chips}/27WXM/"):
        embed(chips, tiny_checkpoint, "27WXM")


def test_a_tile_of_bad_chips_raises_their_reasons(chips: Path, tiny_checkpoint: Path) -> None:
    for number in (1, 2):
        (chips / TILE / "2020-06-15" / chip_name(number)).unlink()

    with pytest.raises(NoUsableChips, match=r"none of its 1 chips can be used \(1 format\)"):
        embed(chips, tiny_checkpoint)


def test_errors_that_stop_a_run_are_raised_unchanged(chips: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(FolderMissing, match="elsewhere"):
        embed(chips.parent / "elsewhere" / "chips", tiny_checkpoint)
    with pytest.raises(StorageError, match=r"no checkpoint at .*none\.ckpt"):
        embed(chips, chips.parent / "none.ckpt")
    with pytest.raises(ValueError, match="expected a Lightning checkpoint"):
        embed(chips, chips / TILE / "2020-06-15" / chip_name(3))
    with pytest.raises(SettingsError, match="LEVEL is 'median', expected one of"):
        embed(chips, tiny_checkpoint, level="median")
    with pytest.raises(
        StorageError, match=r"no tile has a folder under .*expected folders named by MGRS codes"
    ):
        embed(chips / TILE, tiny_checkpoint)


def test_the_public_names_are_imported_when_they_are_used() -> None:
    script = (
        "import sys, clay_assets; early = {'torch', 'pyarrow'} & set(sys.modules);"
        " names = [getattr(clay_assets, name) for name in clay_assets.__all__];"
        " print(sorted(early), 'torch' in sys.modules, 'dagster' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[] True False\n"), done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = clay_assets.nothing


def test_everything_outside_the_dagster_package_works_without_dagster(
    chips: Path, tiny_checkpoint: Path
) -> None:
    """Imports every module of the core, and embeds a tile."""
    script = WITHOUT_DAGSTER + (
        "from clay_assets import embed_tile\n"
        f"done = embed_tile({TILE!r}, chips={str(chips)!r}, checkpoint={str(tiny_checkpoint)!r},"
        f" output={str(chips.parent / 'output')!r}, work={str(chips.parent / 'work')!r}, device='cpu')\n"
        "print(done.rows)\n"
        "loaded = [name for name in sys.modules if name.partition('.')[0] in ('dagster', 'dagster_aws')]\n"
        "assert not loaded, loaded\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(chips.parent / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    modules, rows = map(int, done.stdout.split())
    assert rows == 2
    files = set(Path(clay_assets.__file__).parent.rglob("*.py"))
    dagsters = {path for path in files if "dagster" in path.parts[-2:] or path.name == "definitions.py"}
    assert modules == len(files - dagsters) - 1, (
        "a module was not found, and not imported"
    )  # the package itself
