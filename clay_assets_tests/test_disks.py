"""Disks that are full, read-only or of another user: a clear error, no partial file, earlier files intact.

The tests mount file systems, which needs root on Linux; without it they are skipped.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clay_assets.pipeline import RunStopped, TileOutcome
from clay_assets.publishing.publish import publish_tile
from clay_assets.state.states import TileStores
from clay_assets.storage import DiskFull, Store, StoreDenied
from clay_assets_tests.embedding.scene import Scene, process

MOUNT, UMOUNT = (shutil.which(name) or name for name in ("mount", "umount"))
TILE, NEXT = "27WXN", "27WXP"


@contextmanager
def mounted(place: Path, *how: str) -> Iterator[Path]:
    """Mount at `place` within the block; skips the test without the right to mount."""
    place.mkdir(exist_ok=True)
    try:
        done = subprocess.run([MOUNT, *how, str(place)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("the command `mount` is missing")
    if done.returncode:
        pytest.skip(f"mounting is not allowed: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run([UMOUNT, str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 64 kB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64k", "tmpfs") as place:
        yield place


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only within the block."""
    with mounted(folder, "--bind", str(folder)):
        subprocess.run([MOUNT, "-o", "remount,ro,bind", str(folder)], check=True)
        yield


def stop_run(scene: Scene, stores: TileStores | None = None) -> TileOutcome:
    """Run over two tiles; returns the outcome that stopped the run."""
    with pytest.raises(RunStopped) as stopped:
        process(scene, [TILE, NEXT], stores=stores)
    return stopped.value.outcome


def files_in(folder: Path) -> dict[str, bytes]:
    """Contents of all files below a folder, including hidden ones."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """Two published tiles, each with one chip that is newer."""
    for tile in (TILE, NEXT):
        scene.put(tile, {1: 11, 2: 12})
    process(scene, [TILE, NEXT])
    for tile in (TILE, NEXT):
        scene.put(tile, {3: 13})
    return scene


def test_writing_an_object_to_a_full_disk_leaves_the_earlier_object(small_disk: Path) -> None:
    store = Store(small_disk)
    store.write("a", b"earlier")
    with pytest.raises(
        DiskFull, match=r"disk/a: No space left on device. Free space on that disk, or choose"
    ):
        store.write("a", bytes(100_000))
    assert files_in(small_disk) == {"a": b"earlier"}


def test_copying_a_file_to_a_full_disk_leaves_the_earlier_file(small_disk: Path, tmp_path: Path) -> None:
    store = Store(small_disk)
    store.write("a", b"earlier")
    (tmp_path / "large").write_bytes(bytes(100_000))
    with pytest.raises(DiskFull, match="No space left on device"):
        store.put("a", tmp_path / "large")
    assert files_in(small_disk) == {"a": b"earlier"}


def test_a_full_output_stops_the_run_and_leaves_the_published_files(scene: Scene, small_disk: Path) -> None:
    for path in (scene.root / "output").iterdir():
        (small_disk / path.name).write_bytes(path.read_bytes())
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    before = files_in(small_disk)

    outcome = stop_run(scene, TileStores(scene.chips, scene.work, Store(small_disk)))

    assert isinstance(outcome.error, DiskFull)
    assert str(small_disk) in str(outcome.error)
    assert files_in(small_disk) == before
    assert scene.values(TILE) == {1: 11, 2: 12, 3: 13}  # the next run uses these results


def test_a_read_only_output_stops_the_run_and_leaves_the_published_files(scene: Scene) -> None:
    before = files_in(scene.root / "output")
    with read_only(scene.root / "output"):
        outcome = stop_run(scene)
    assert isinstance(outcome.error, StoreDenied)
    assert "Read-only file system, expected one that can be written" in str(outcome.error)
    assert files_in(scene.root / "output") == before


def test_a_read_only_work_store_stops_the_run_and_leaves_everything(scene: Scene) -> None:
    before = files_in(scene.root / "work") | files_in(scene.root / "output")
    with read_only(scene.root / "work"):
        outcome = stop_run(scene)
    assert isinstance(outcome.error, StoreDenied)
    assert files_in(scene.root / "work") | files_in(scene.root / "output") == before


@pytest.fixture
def full_temporary_folder(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder on a full disk."""
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    return small_disk


FULL = "the temporary folder {}: No space left on device. Free space, or set TMPDIR to"


def test_a_full_temporary_folder_stops_the_run_and_leaves_everything(
    scene: Scene, full_temporary_folder: Path
) -> None:
    before = files_in(scene.root / "work") | files_in(scene.root / "output")

    outcome = stop_run(scene)

    assert isinstance(outcome.error, DiskFull)
    assert FULL.format(full_temporary_folder) in str(outcome.error)
    assert files_in(scene.root / "work") | files_in(scene.root / "output") == before
    assert list(files_in(full_temporary_folder)) == ["filler"]


def test_publishing_with_a_full_temporary_folder_leaves_the_earlier_file(
    scene: Scene, full_temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    scene.embed()
    monkeypatch.setattr(tempfile, "tempdir", str(full_temporary_folder))
    before = files_in(scene.root / "output")

    with pytest.raises(DiskFull, match=FULL.format(full_temporary_folder)):
        publish_tile(scene.work, scene.output, TILE, version=1, target=scene.encoder().target())

    assert files_in(scene.root / "output") == before
    assert list(files_in(full_temporary_folder)) == ["filler"]


def test_a_read_only_temporary_folder_stops_the_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with read_only(tmp_path / "temporary"):
        outcome = stop_run(scene)
    assert isinstance(outcome.error, StoreDenied)
    assert "temporary cannot be written (Read-only file system)" in str(outcome.error)


def test_writing_to_another_users_folder_is_refused(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="clay-test-"))  # other users cannot enter tmp_path's parents
    try:
        (folder / "a").write_bytes(b"earlier")
        folder.chmod(0o555)
        code = (
            "import os, sys\n"
            "from clay_assets.storage import Store, StoreDenied\n"
            "import clay_assets.storage.folder\n"
            "if os.getuid() == 0: os.setuid(65534)\n"
            "try: Store(sys.argv[1]).write('a', b'new')\n"
            "except StoreDenied as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert done.stdout == (
            f"{folder}/a: Permission denied. Check the owner and mode of the file and its folders.\n"
        )
        assert files_in(folder) == {"a": b"earlier"}
    finally:
        folder.chmod(0o755)
        (folder / "a").unlink()
        folder.rmdir()
