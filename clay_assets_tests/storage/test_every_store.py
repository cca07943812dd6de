"""Behaviour of every store, tested on a folder and on each kind of server."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clay_assets.storage import (
    ObjectChanged,
    ObjectMissing,
    S3Options,
    StorageError,
    Store,
    StoredObject,
)


def test_a_written_object_is_listed_and_read_back(store: Store) -> None:
    store.write("27WXN/a.tif", b"chip")

    (found,) = store.list()

    assert found.url == f"{store.uri}/27WXN/a.tif" == store.url("27WXN/a.tif")
    assert found.size == 4
    assert '"' not in found.etag
    assert store.stat("27WXN/a.tif") == found
    assert store.read(found) == store.read(found.url) == store.read("27WXN/a.tif") == b"chip"


def test_an_empty_object_can_be_stored(store: Store) -> None:
    store.write("empty", b"")

    assert store.read(store.stat("empty")) == b""
    assert store.open("empty").read() == b""


def test_listing_is_recursive_sorted_and_without_hidden_names(store: Store) -> None:
    for key in ["b.tif", "a/2.tif", "a/1.tif", "a-b/1.tif", ".b.tif.0f.tmp", ".cache/x.tif", "a/.x"]:
        store.write(key, b"")

    keys = ["a-b/1.tif", "a/1.tif", "a/2.tif", "b.tif"]
    assert [found.url for found in store.list()] == [store.url(key) for key in keys]


@pytest.mark.parametrize(
    ("prefix", "keys"),
    [
        ("27WXN/", ["27WXN/2.tif", "27WXN/2020/1.tif"]),
        ("27WXN/2020", ["27WXN/2020/1.tif"]),
        ("27WXN", ["27WXN/2.tif", "27WXN/2020/1.tif", "27WXN_v001.gpq"]),
        ("27WXN_", ["27WXN_v001.gpq"]),
        ("27WXP/", []),
        ("../", []),
    ],
)
def test_listing_can_be_narrowed_to_a_prefix(store: Store, prefix: str, keys: list[str]) -> None:
    for key in ["27WXN/2020/1.tif", "27WXN/2.tif", "27WXN_v001.gpq", "28WXN/1.tif"]:
        store.write(key, b"")

    assert [found.url for found in store.list(prefix)] == [store.url(key) for key in keys]


def test_a_listing_never_comes_from_a_cache(store: Store) -> None:
    assert store.list() == []
    assert store.folders() == []
    store.write("27WXN/1.tif", b"")
    assert len(store.list()) == 1
    assert store.folders() == ["27WXN"]
    store.delete("27WXN/1.tif")
    assert store.list() == []


def test_folders_are_the_names_one_level_down(store: Store) -> None:
    for key in ["28WXN/2020/1.tif", "27WXN/1.tif", ".hidden/1.tif", "file.tif"]:
        store.write(key, b"")

    assert store.folders() == ["27WXN", "28WXN"]


def test_a_stored_file_replaces_the_earlier_one(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "new.gpq"
    local.write_bytes(bytes(range(256)) * 20_000)
    store.write("27WXN.gpq", b"old")

    store.put("27WXN.gpq", local)

    assert [found.url for found in store.list()] == [store.url("27WXN.gpq")]
    assert store.read("27WXN.gpq") == local.read_bytes()


def test_storing_a_missing_file_raises_file_not_found(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.gpq"):
        store.put("27WXN.gpq", tmp_path / "none.gpq")

    assert not store.exists("27WXN.gpq")


def test_an_object_that_changed_after_the_listing_is_not_read(store: Store, tmp_path: Path) -> None:
    store.write("1.tif", b"before")
    (listed,) = store.list()
    store.write("1.tif", b"after!")  # of the same size: only the ETag differs

    with pytest.raises(ObjectChanged, match=r"1\.tif.*List it again") as raised:
        store.read(listed)
    with pytest.raises(ObjectChanged):
        store.fetch_to(listed, tmp_path / "copy")
    with pytest.raises(ObjectChanged):  # detected on opening in a folder, on reading in a bucket
        store.open(listed).read()

    assert not raised.value.systemic
    assert not (tmp_path / "copy").exists()
    assert store.read("1.tif") == b"after!"


def test_a_missing_object_is_named(store: Store) -> None:
    for attempt in (store.read, store.stat, store.open):
        with pytest.raises(ObjectMissing, match=r"ghost\.tif") as raised:
            attempt("ghost.tif")
        assert not raised.value.systemic
    assert not store.exists("ghost.tif")
    store.delete("ghost.tif")  # deleting it again is no error


def test_parquet_columns_are_read_through_an_open_file(store: Store, tmp_path: Path) -> None:
    table = pa.table({"url": [f"chip {n}" for n in range(1000)], "value": range(1000)})
    pq.write_table(table, tmp_path / "table.parquet")
    store.put("table.parquet", tmp_path / "table.parquet")

    with store.open("table.parquet") as file:
        assert pq.read_metadata(file).num_rows == 1000
        assert pq.read_table(file, columns=["value"]).equals(table.select(["value"]))


def test_an_open_file_seeks_like_any_other(store: Store) -> None:
    content = os.urandom(3_000_000)  # more than is read ahead
    store.write("content", content)

    with store.open("content") as file:
        assert file.seek(-10, os.SEEK_END) == len(content) - 10
        assert file.read(100) == content[-10:]
        assert file.read() == b""
        assert file.seek(5) == 5
        assert file.read(2_000_000) == content[5:2_000_005]
        assert file.tell() == 2_000_005
        for offset, whence in (
            (-1, os.SEEK_SET),
            (-len(content), os.SEEK_CUR),
            (-len(content) - 1, os.SEEK_END),
        ):
            with pytest.raises(OSError, match="Invalid argument"):
                file.seek(offset, whence)
            assert file.tell() == 2_000_005
        assert file.read(10) == content[2_000_005:2_000_015]
        file.seek(len(content) + 5)
        assert file.read(1) == b""


def test_a_store_can_be_a_single_object(
    store: Store, place: tuple[str, S3Options | None], tmp_path: Path
) -> None:
    store.write("v0/model.ckpt", b"weights" * 500_000)
    checkpoint = Store(store.url("v0/model.ckpt"), place[1])

    checkpoint.fetch_to("", tmp_path / "cache" / "model.ckpt")

    assert checkpoint.stat() == store.stat("v0/model.ckpt")
    assert checkpoint.url() == store.url("v0/model.ckpt")
    assert (tmp_path / "cache" / "model.ckpt").read_bytes() == store.read("v0/model.ckpt")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["model.ckpt"]
    assert checkpoint.read(checkpoint.stat()) == checkpoint.open("").read()
    assert not Store(store.url("v1.ckpt"), place[1]).exists()


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../secret", "./a", "a\0b", "/etc/passwd", "s3://other/secret"]
)
def test_a_name_that_leaves_the_store_is_refused(store: Store, name: str) -> None:
    with pytest.raises(StorageError, match=r"cannot be a key|is not in the store"):
        store.read(name)
    with pytest.raises(StorageError, match=r"cannot be a key|is not in the store"):
        store.read(StoredObject(name, 1, "0"))
    with pytest.raises(StorageError, match=r"cannot be a key|is not in the store"):
        store.write(name, b"")


def test_many_threads_use_one_store(store: Store) -> None:
    contents = {f"{n}.tif": os.urandom(200_000 + n) for n in range(48)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(store.write, contents.keys(), contents.values()))
        read = list(pool.map(store.read, store.list()))

    assert sorted(read) == sorted(contents.values())
