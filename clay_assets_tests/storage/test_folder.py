"""A folder: links, permissions, and files that appear whole."""

import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clay_assets.storage import (
    AccessDenied,
    FolderMissing,
    ObjectChanged,
    ObjectMissing,
    StorageError,
    Store,
    StoreDenied,
)
from clay_assets.storage.folder import replacing

UNPRIVILEGED = 65534  # user and group `nobody`


def test_a_missing_store_folder_is_named_and_a_missing_folder_in_it_is_empty(tmp_path: Path) -> None:
    for question in (Store(tmp_path / "none").list, Store(tmp_path / "none").folders):
        with pytest.raises(FolderMissing, match=r"/none is missing.*Create it") as raised:
            question()
        assert raised.value.systemic
    assert Store(tmp_path).list("none/") == []
    assert not Store(tmp_path / "none").exists("a")


def test_a_file_where_the_store_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(FolderMissing, match=r"Not a directory"):
        Store(tmp_path / "file").list()
    with pytest.raises(StorageError, match=r"file/a\.tif"):
        Store(tmp_path / "file").write("a.tif", b"")


def test_writing_creates_the_folders(tmp_path: Path) -> None:
    Store(tmp_path / "new" / "store").write("27WXN/a.tif", b"chip")

    assert (tmp_path / "new" / "store" / "27WXN" / "a.tif").read_bytes() == b"chip"


def test_a_relative_folder_counts_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("data/chips/")
    monkeypatch.chdir("/")

    assert store.uri == str(tmp_path / "data" / "chips")


def test_links_out_of_the_folder_are_neither_listed_nor_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, outside = tmp_path / "store", tmp_path / "outside"
    for folder in (root / "27WXN", outside):
        folder.mkdir(parents=True)
    (outside / "secret.tif").write_bytes(b"secret")
    (root / "27WXN" / "real.tif").write_bytes(b"chip")
    (root / "27WXN" / "alias.tif").symlink_to("real.tif")
    (root / "27WXN" / "stolen.tif").symlink_to(outside / "secret.tif")
    (root / "27WXN" / "loop").symlink_to(root)
    (root / "28WXN").symlink_to(outside)
    store = Store(root)

    listed = [found.url for found in store.list()]

    assert listed == [store.url("27WXN/alias.tif"), store.url("27WXN/real.tif")]
    assert store.folders() == ["27WXN"]
    assert "stolen.tif is ignored" in caplog.text
    for key in ("27WXN/stolen.tif", "28WXN/secret.tif"):
        with pytest.raises(AccessDenied, match=r"link that leaves") as refused:
            store.read(key)
        assert not refused.value.systemic
        with pytest.raises(AccessDenied, match=r"link that leaves"):
            store.write(key, b"overwritten")
    assert (outside / "secret.tif").read_bytes() == b"secret"


@pytest.fixture
def unprivileged_folder() -> Iterator[Path]:
    """A folder owned by a user other than root, because root ignores modes."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        if is_root:
            os.chown(name, UNPRIVILEGED, UNPRIVILEGED)
            os.seteuid(UNPRIVILEGED)
        try:
            yield Path(name)
        finally:
            os.seteuid(os.getuid())


def test_a_denied_file_or_tile_is_not_systemic_and_a_denied_store_is(
    unprivileged_folder: Path,
) -> None:
    store = Store(unprivileged_folder)
    for key in ("27WXN/a.tif", "27WXN/b.tif", "27WXP/a.tif"):
        store.write(key, b"chip")
    listed = {found.url: found for found in store.list()}
    (unprivileged_folder / "27WXN" / "a.tif").chmod(0)
    (unprivileged_folder / "27WXP").chmod(0)

    with pytest.raises(AccessDenied, match=r"a\.tif: Permission denied. Check the owner and mode") as file:
        store.read("27WXN/a.tif")
    with pytest.raises(AccessDenied, match=r"27WXP/: Permission denied. Check the owner and mode") as tile:
        store.list("27WXP/")
    assert store.read(listed[store.url("27WXN/b.tif")]) == b"chip"
    unprivileged_folder.chmod(0)
    with pytest.raises(StoreDenied, match=r"Permission denied\. Check the owner and mode") as whole:
        store.list()
    assert (file.value.systemic, tile.value.systemic, whole.value.systemic) == (False, False, True)


def test_the_store_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "chips").symlink_to(tmp_path / "disk")
    store = Store(tmp_path / "chips")
    store.write("a.tif", b"chip")

    assert [found.url for found in store.list()] == [str(tmp_path / "chips" / "a.tif")]
    assert store.read("a.tif") == b"chip"


def test_folders_and_pipes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "folder.tif").mkdir()
    os.mkfifo(tmp_path / "pipe.tif")  # opening it would block forever
    store = Store(tmp_path)

    assert store.list() == []
    for key in ("folder.tif", "pipe.tif"):
        with pytest.raises(ObjectMissing, match=r"is not a file"):
            store.read(key)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "27WXN.gpq"
    target.write_bytes(b"old")

    def interrupted() -> None:
        with replacing(target) as file:
            file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_putting_a_file_where_a_folder_is_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "store" / "taken").mkdir(parents=True)
    (tmp_path / "local").write_bytes(b"new")

    with pytest.raises(StorageError, match=r"taken: Is a directory: it is not a file"):
        Store(tmp_path / "store").put("taken", tmp_path / "local")

    assert [path.name for path in (tmp_path / "store").iterdir()] == ["taken"]


def test_stored_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    Store(tmp_path).write("stored", b"")

    assert (tmp_path / "stored").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    growing = tmp_path / "growing.tif"
    growing.write_bytes(bytes(32 << 20))
    finished = threading.Event()

    def grow() -> None:
        with growing.open("ab", buffering=0) as file:
            while not finished.is_set():
                file.write(b"more")

    def read_often() -> None:
        """On a busy machine one read may fall between two writes, but not fifty of them."""
        for _ in range(50):
            Store(tmp_path).read("growing.tif")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(grow)
        try:
            with pytest.raises(ObjectChanged, match=r"growing\.tif changed while it was read"):
                read_often()
        finally:
            finished.set()
