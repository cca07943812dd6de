"""Stores on a real folder and on a real S3 server; what both must do is asked of both."""

import base64
import json
import os
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clay_assets.storage import (
    AccessDenied,
    BucketMissing,
    FolderMissing,
    Misconfigured,
    ObjectChanged,
    ObjectMissing,
    S3Options,
    StorageError,
    Store,
    StoreDenied,
    StoredObject,
    TransferFailed,
)
from clay_assets.storage.folder import replacing
from clay_assets_tests.s3_server import S3Bucket, checking_credentials, client, free_port

SECRET = "a-secret/that-must-not/be+shown"  # noqa: S105 - only ever sent to loopback servers

NOBODY = 65534  # a user and a group that own nothing


@pytest.fixture(autouse=True)
def no_credentials_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the developer's AWS settings nor a cloud machine's role can help or hinder a test."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "folder":
        (tmp_path / "store").mkdir()
        return Store(tmp_path / "store")
    bucket: S3Bucket = request.getfixturevalue("bucket")
    return bucket.store("some/prefix")


# What both kinds do


def test_what_is_written_is_listed_and_read_back(store: Store) -> None:
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


def test_storing_a_file_that_is_not_there_is_the_callers_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.gpq"):
        store.put("27WXN.gpq", tmp_path / "none.gpq")

    assert not store.exists("27WXN.gpq")


def test_an_object_that_changed_after_the_listing_is_not_read(store: Store, tmp_path: Path) -> None:
    store.write("1.tif", b"before")
    (listed,) = store.list()
    store.write("1.tif", b"after!")  # of the same size: only the ETag tells

    with pytest.raises(ObjectChanged, match=r"1\.tif.*List it again") as raised:
        store.read(listed)
    with pytest.raises(ObjectChanged):
        store.fetch_to(listed, tmp_path / "copy")
    with pytest.raises(
        ObjectChanged
    ):  # a folder's file shows it when it is opened, a bucket's when it is read
        store.open(listed).read()

    assert not raised.value.systemic
    assert not (tmp_path / "copy").exists()
    assert store.read("1.tif") == b"after!"


def test_an_object_that_is_not_there_is_named(store: Store) -> None:
    for attempt in (store.read, store.stat, store.open):
        with pytest.raises(ObjectMissing, match=r"ghost\.tif") as raised:
            attempt("ghost.tif")
        assert not raised.value.systemic
    assert not store.exists("ghost.tif")
    store.delete("ghost.tif")  # no error: it is gone


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
        file.seek(len(content) + 5)
        assert file.read(1) == b""


def test_a_store_can_be_a_single_object(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store.write("v0/model.ckpt", b"weights" * 500_000)
    options = None if store.is_local else request.getfixturevalue("bucket").options
    checkpoint = Store(store.url("v0/model.ckpt"), options)

    fetched = checkpoint.fetch_to("", tmp_path / "cache" / "model.ckpt")

    assert fetched == checkpoint.stat() == store.stat("v0/model.ckpt")
    assert checkpoint.url() == store.url("v0/model.ckpt")
    assert (tmp_path / "cache" / "model.ckpt").read_bytes() == store.read("v0/model.ckpt")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["model.ckpt"]
    assert checkpoint.read(fetched) == checkpoint.open("").read()
    assert not Store(store.url("v1.ckpt"), options).exists()


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../secret", "./a", "a\0b", "/etc/passwd", "s3://other/secret"]
)
def test_a_name_that_leads_out_of_the_store_is_refused(store: Store, name: str) -> None:
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


# Folders


def test_a_missing_store_folder_is_named_and_a_missing_folder_in_it_is_empty(tmp_path: Path) -> None:
    for question in (Store(tmp_path / "none").list, Store(tmp_path / "none").folders):
        with pytest.raises(FolderMissing, match=r"/none is not there.*Create it") as raised:
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
    assert "stolen.tif left out" in caplog.text
    for key in ("27WXN/stolen.tif", "28WXN/secret.tif"):
        with pytest.raises(AccessDenied, match=r"link that leaves") as refused:
            store.read(key)
        assert not refused.value.systemic
        with pytest.raises(AccessDenied, match=r"link that leaves"):
            store.write(key, b"overwritten")
    assert (outside / "secret.tif").read_bytes() == b"secret"


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    """A folder whose owner runs the test: root, whom no mode keeps out, becomes nobody for it."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        if is_root:
            os.chown(name, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(os.getuid())


def test_a_file_without_permissions_is_denied_alone_and_the_whole_folder_with_all_in_it(
    folder_of_nobody: Path,
) -> None:
    store = Store(folder_of_nobody)
    for key in ("27WXN/a.tif", "27WXN/b.tif", "27WXP/a.tif"):
        store.write(key, b"chip")
    listed = {found.url: found for found in store.list()}
    (folder_of_nobody / "27WXN" / "a.tif").chmod(0)
    (folder_of_nobody / "27WXP").chmod(0)

    with pytest.raises(AccessDenied, match=r"a\.tif: Permission denied. Check the owner and mode") as file:
        store.read("27WXN/a.tif")
    with pytest.raises(AccessDenied, match=r"27WXP/: Permission denied. Check the owner and mode") as tile:
        store.list("27WXP/")
    assert store.read(listed[store.url("27WXN/b.tif")]) == b"chip"
    folder_of_nobody.chmod(0)
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


def test_what_is_not_a_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "folder.tif").mkdir()
    os.mkfifo(tmp_path / "pipe.tif")  # opening it would wait for ever
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

    with pytest.raises(StorageError, match=r"taken is not a file"):
        Store(tmp_path / "store").put("taken", tmp_path / "local")

    assert [path.name for path in (tmp_path / "store").iterdir()] == ["taken"]


def test_stored_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    Store(tmp_path).write("stored", b"")

    assert (tmp_path / "stored").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_that_grows_while_it_is_read_is_not_taken_for_whole(tmp_path: Path) -> None:
    growing = tmp_path / "growing.tif"
    growing.write_bytes(bytes(32 << 20))
    finished = threading.Event()

    def grow() -> None:
        with growing.open("ab", buffering=0) as file:
            while not finished.is_set():
                file.write(b"more")

    def read_often() -> None:
        """On a busy machine a whole read may fall between two writes; not fifty of them."""
        for _ in range(50):
            Store(tmp_path).read("growing.tif")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(grow)
        try:
            with pytest.raises(ObjectChanged, match=r"growing\.tif was written to while it was read"):
                read_often()
        finally:
            finished.set()


# Addresses


@pytest.mark.parametrize(
    ("uri", "phrase"),
    [
        ("", r"got nothing"),
        ("gs://bucket/chips", r"folder .* or s3://bucket/prefix; got scheme gs://"),
        ("file:///data/chips", r"without file://"),
        ("s3a://bucket/chips", r"got scheme s3a://"),
        ("s3://", r"got '' as the bucket's name"),
        ("s3:///chips", r"got '' as the bucket's name"),
        ("s3://my bucket/chips", r"got 'my bucket' as the bucket's name"),
        (f"s3://key:{SECRET}@bucket/chips", r"holds credentials"),
        (f"s3://key:{SECRET}", r"holds credentials"),
        (f"s3://my key/{SECRET}@bucket/chips", r"holds credentials"),
    ],
)
def test_an_address_that_is_no_store_is_refused_with_the_ones_that_are(uri: str, phrase: str) -> None:
    with pytest.raises(Misconfigured, match=phrase) as raised:
        Store(uri)

    assert raised.value.systemic
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("uri", ["s3://chips", "s3://chips/", "s3://chips//"])
def test_slashes_at_the_end_of_an_address_mean_nothing(uri: str) -> None:
    assert Store(uri).uri == "s3://chips"
    assert Store(uri).url("a.tif") == "s3://chips/a.tif"


def test_fewer_than_one_attempt_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"got 0; expected at least 1"):
        S3Options(max_attempts=0)


# S3


def test_a_listing_goes_on_after_the_first_thousand(bucket: S3Bucket) -> None:
    store = bucket.store("chips")
    keys = [f"{n:04}.tif" for n in range(1003)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.write(key, key.encode()), keys))

    listed = store.list()

    assert [found.url for found in listed] == [store.url(key) for key in keys]
    assert store.read(listed[-1]) == b"1002.tif"


def test_keys_with_odd_characters_survive(bucket: S3Bucket) -> None:
    keys = ["a b.tif", "a%20b.tif", "a+b.tif", "a//b.tif", "ä?x=#1.tif"]
    store = bucket.store()
    for key in keys:
        store.write(key, key.encode())

    listed = store.list()

    assert [found.url for found in listed] == sorted(store.url(key) for key in keys)
    assert sorted(store.read(found).decode() for found in listed) == sorted(keys)


def test_folder_markers_of_the_console_are_no_objects(bucket: S3Bucket) -> None:
    for key in ("chips/", "chips/27WXN/", "chips/27WXN/a.tif"):
        client(bucket.endpoint).put_object(Bucket=bucket.name, Key=key, Body=b"")

    store = bucket.store("chips")

    assert [found.url for found in store.list()] == [store.url("27WXN/a.tif")]
    assert store.folders() == ["27WXN"]


def test_an_empty_prefix_is_empty_but_a_missing_bucket_is_an_error(bucket: S3Bucket) -> None:
    nothing = bucket.store("nothing/here")
    assert nothing.list() == []
    assert nothing.folders() == []
    nowhere = Store("s3://no-such-bucket/chips", bucket.options)
    attempts: list[Callable[[], object]] = [
        nowhere.list,
        nowhere.folders,
        lambda: nowhere.read("a"),
        lambda: nowhere.exists("a"),
        lambda: nowhere.write("a", b""),
        lambda: nowhere.delete("a"),
    ]
    for attempt in attempts:
        with pytest.raises(BucketMissing, match=r"s3://no-such-bucket.*Check the bucket's name") as raised:
            attempt()
        assert raised.value.systemic


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of more than 6 MiB are large, and go in the smallest parts that S3 takes."""
    monkeypatch.setattr("clay_assets.storage.bucket.LARGE", 6 << 20)
    monkeypatch.setattr("clay_assets.storage.bucket.PART", 5 << 20)


def uploads(bucket: S3Bucket) -> list[Any]:
    """Multipart uploads that were begun and neither completed nor aborted."""
    found: list[Any] = client(bucket.endpoint).list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
    return found


@pytest.mark.usefixtures("in_parts")
def test_a_large_file_is_stored_in_parts_and_read_as_one(bucket: S3Bucket, tmp_path: Path) -> None:
    content = os.urandom(12 << 20)  # 5 + 5 + 2
    (tmp_path / "large").write_bytes(content)
    store = bucket.store("work")
    store.write("large", b"an earlier one")

    store.put("large", tmp_path / "large")

    (listed,) = store.list()
    assert (listed.size, listed.etag[-2:]) == (len(content), "-3"), "S3 marks an object of three parts"
    assert store.read(listed) == content
    assert uploads(bucket) == []


@pytest.mark.usefixtures("in_parts")
def test_an_upload_in_parts_that_breaks_leaves_the_earlier_object_and_nothing_else(
    bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(bytes(12 << 20))
    store = bucket.store()
    store.write("large", b"an earlier one")
    monkeypatch.setattr("clay_assets.storage.bucket.PART", 4 << 20)  # less than S3 takes, which it says last

    with pytest.raises(StorageError, match=r"CompleteMultipartUpload with EntityTooSmall"):
        store.put("large", tmp_path / "large")

    assert store.read("large") == b"an earlier one"
    assert uploads(bucket) == []


def test_parts_grow_with_a_file_that_would_need_too_many(
    bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LARGE": 6 << 20, "PART": 1 << 20, "MAX_PARTS": 2}.items():
        monkeypatch.setattr(f"clay_assets.storage.bucket.{name}", value)
    content = os.urandom((11 << 20) + 1)
    (tmp_path / "large").write_bytes(content)

    bucket.store().put("large", tmp_path / "large")

    assert bucket.store().read("large") == content
    assert bucket.store().stat("large").etag.endswith("-2")


@pytest.fixture
def users(bucket: S3Bucket) -> Iterator[dict[str, S3Options]]:
    """Options of a user who may do everything and one who may do nothing, on a server that checks."""
    iam = client(bucket.endpoint, "iam")
    options = {}
    for name in ("allowed", "forbidden"):
        user = f"{name}-{bucket.name}"
        iam.create_user(UserName=user)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        options[name] = replace(
            bucket.options, aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"]
        )
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_user_policy(
        UserName=f"allowed-{bucket.name}", PolicyName="all", PolicyDocument=json.dumps(policy)
    )
    with checking_credentials(bucket.endpoint):
        yield options


def test_good_credentials_pass_where_they_are_checked(bucket: S3Bucket, users: dict[str, S3Options]) -> None:
    store = Store(bucket.uri("chips"), users["allowed"])
    store.write("a.tif", b"chip")

    assert [store.read(found) for found in store.list()] == [b"chip"]


def test_bad_credentials_are_explained_at_once_and_not_shown(
    bucket: S3Bucket, users: dict[str, S3Options]
) -> None:
    cases = {
        r"InvalidAccessKeyId.*does not know this access key": replace(
            bucket.options, aws_access_key_id="AKIAUNKNOWN", aws_secret_access_key=SECRET
        ),
        r"SignatureDoesNotMatch.*secret key does not belong": replace(
            users["allowed"], aws_secret_access_key=SECRET
        ),
        r"Unable to locate credentials.*AWS_ACCESS_KEY_ID": S3Options(endpoint_url=bucket.endpoint),
        r"missing: aws_secret_access_key": S3Options(
            endpoint_url=bucket.endpoint, aws_access_key_id="AKIAUNKNOWN"
        ),
        r"profile \(nobody\) could not be found.*AWS_PROFILE": S3Options(profile_name="nobody"),
    }
    for phrase, options in cases.items():
        store = Store(bucket.uri("chips"), replace(options, max_attempts=5))
        attempts: list[Callable[[], object]] = [store.list, partial(store.write, "a", b"")]
        for attempt in attempts:
            began = time.monotonic()
            with pytest.raises(StoreDenied, match=phrase) as raised:
                attempt()
            assert time.monotonic() - began < 2, "a permanent error was tried again"
            assert raised.value.systemic
            _shows_none_of(raised.value, options.aws_access_key_id, options.aws_secret_access_key)
        with pytest.raises(AccessDenied):  # a HEAD's answer has no body that would say why
            store.stat("a")


def test_a_denied_listing_or_writing_is_of_the_whole_store_and_a_denied_object_of_itself(
    bucket: S3Bucket, users: dict[str, S3Options]
) -> None:
    allowed, forbidden = (Store(bucket.uri("chips"), users[name]) for name in ("allowed", "forbidden"))
    allowed.write("a.tif", b"chip")
    throughout: list[Callable[[], object]] = [
        forbidden.list,
        forbidden.folders,
        partial(forbidden.write, "a.tif", b""),
    ]
    single: list[Callable[[], object]] = [
        partial(forbidden.read, "a.tif"),
        partial(forbidden.stat, "a.tif"),
    ]
    for attempt in throughout:
        with pytest.raises(StoreDenied, match=r"AccessDenied.*These credentials may not do this") as denied:
            attempt()
        assert denied.value.systemic
        _shows_none_of(denied.value, users["forbidden"].aws_secret_access_key)
    for attempt in single:
        with pytest.raises(AccessDenied, match="These credentials may not do this") as one:
            attempt()
        assert not one.value.systemic


def _shows_none_of(error: BaseException, *secrets: str | None) -> None:
    """Neither the error nor what a traceback or Dagster would show with it."""
    shown: BaseException | None = error
    while shown is not None:
        assert not any(secret and secret in f"{shown} {shown!r}" for secret in secrets)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


def test_credentials_are_never_in_a_repr() -> None:
    options = S3Options(aws_access_key_id=SECRET, aws_secret_access_key=SECRET, aws_session_token=SECRET)

    assert SECRET not in repr(options)
    assert SECRET not in repr(Store("s3://chips", options))


def test_credentials_in_a_url_or_an_answer_are_struck_out() -> None:
    for secret in (SECRET, SECRET.replace("/", "-")):  # with a slash it is no URL to the SDK, which says so
        options = S3Options(endpoint_url=f"http://user:{secret}@127.0.0.1:{free_port()}", max_attempts=1)
        store = Store("s3://chips", replace(options, use_unsigned_session=True))
        with pytest.raises((TransferFailed, Misconfigured), match=r"http://\*\*\*@127") as raised:
            store.list()
        _shows_none_of(raised.value, secret)

    def echo(request: BaseHTTPRequestHandler, _: int) -> None:
        body = f"<Error><Code>Teapot</Code><Message>not with {SECRET}</Message></Error>".encode()
        _answer(request, 418, body)

    with _server(echo) as endpoint:
        options = replace(_keys(endpoint), aws_session_token=SECRET)
        with pytest.raises(StorageError, match=r"Teapot, not with \*\*\*") as echoed:
            Store("s3://chips", options).list()
    _shows_none_of(echoed.value, SECRET)


def test_public_objects_are_read_without_credentials_and_private_ones_are_not(bucket: S3Bucket) -> None:
    s3 = client(bucket.endpoint)
    s3.put_object(Bucket=bucket.name, Key="public", Body=b"for all", ACL="public-read")
    s3.put_object(Bucket=bucket.name, Key="private", Body=b"for some")
    anonymous = Store(bucket.uri(), S3Options(endpoint_url=bucket.endpoint, use_unsigned_session=True))

    assert anonymous.read("public") == b"for all"
    with pytest.raises(AccessDenied, match=r"s3://.*private.*These credentials may not") as denied:
        anonymous.read("private")
    assert not denied.value.systemic


def test_the_sdks_own_variables_are_enough(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    Store(bucket.uri()).write("a.tif", b"chip")

    assert [found.url for found in bucket.store().list()] == [bucket.uri("a.tif")]


@pytest.mark.parametrize("by_field", [True, False])
def test_a_profile_is_enough(
    bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_field: bool
) -> None:
    (tmp_path / "config").write_text(
        f"[profile chips]\nregion = us-west-2\nendpoint_url = {bucket.endpoint}\n"
        "aws_access_key_id = a\naws_secret_access_key = b\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    if not by_field:
        monkeypatch.setenv("AWS_PROFILE", "chips")
    Store(bucket.uri(), S3Options(profile_name="chips" if by_field else None)).write("a.tif", b"chip")

    assert bucket.store().exists("a.tif")


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        (S3Options(endpoint_url="localhost:9000"), r"Invalid endpoint: localhost:9000"),
        (S3Options(region_name="not a region"), r"'not a region'"),
    ],
)
def test_settings_that_cannot_work_are_named(options: S3Options, phrase: str) -> None:
    with pytest.raises(Misconfigured, match=phrase):
        Store("s3://chips", replace(options, use_unsigned_session=True)).list()


# Networks that break. The servers are real; that they misbehave is the point.

CONTENT = bytes(range(256)) * 4096  # 1 MiB
ETAG = "0123456789abcdef0123456789abcdef"
LISTED = StoredObject("s3://chips/a.tif", len(CONTENT), ETAG)


@contextmanager
def _server(answer: Callable[[BaseHTTPRequestHandler, int], None]) -> Iterator[str]:
    """Serves HTTP on loopback; `answer` gets each request and its number, from 1."""
    count = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            nonlocal count
            count += 1
            answer(self, count)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _answer(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    send: int | None = None,
    headers: dict[str, str] | None = None,
) -> None:
    """Announces a body, and sends its first `send` bytes before it hangs up; None: all of them."""
    request.send_response(status)
    request.send_header("ETag", f'"{ETAG}"')
    request.send_header("Content-Length", str(len(body)))
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body[:send])
    request.close_connection = send is not None


def _keys(endpoint: str, max_attempts: int = 5) -> S3Options:
    """Options with keys, for a server of this file."""
    return S3Options(
        endpoint_url=endpoint,
        max_attempts=max_attempts,
        aws_access_key_id="key",
        aws_secret_access_key="secret",  # noqa: S106 - any would do
    )


def test_a_transfer_that_breaks_midway_is_repeated(tmp_path: Path) -> None:
    def breaks_twice(request: BaseHTTPRequestHandler, number: int) -> None:
        _answer(request, 200, CONTENT, send=100_000 * number if number % 3 else None)

    with _server(breaks_twice) as endpoint:
        store = Store("s3://chips", _keys(endpoint))

        assert store.read(LISTED) == CONTENT
        assert store.fetch_to("a.tif", tmp_path / "a.tif") == LISTED
        assert (tmp_path / "a.tif").read_bytes() == CONTENT


def test_a_body_that_does_not_match_its_checksum_is_repeated() -> None:
    checksum = base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()

    def corrupts_once(request: BaseHTTPRequestHandler, number: int) -> None:
        content = CONTENT if number > 1 else CONTENT[:-1] + b"?"
        _answer(request, 200, content, headers={"x-amz-checksum-crc32": checksum})

    with _server(corrupts_once) as endpoint:
        assert Store("s3://chips", _keys(endpoint)).read(LISTED) == CONTENT


def test_a_transfer_that_always_breaks_fails_after_its_attempts(tmp_path: Path) -> None:
    requests = []

    def always_breaks(request: BaseHTTPRequestHandler, number: int) -> None:
        requests.append(number)
        _answer(request, 200, CONTENT, send=300_000)

    with _server(always_breaks) as endpoint:
        store = Store("s3://chips", _keys(endpoint, max_attempts=3))
        with pytest.raises(TransferFailed, match=r"chips/a\.tif.*broke after 300000 of 1048576") as raised:
            store.read(LISTED)
        assert len(requests) == 3
        with pytest.raises(TransferFailed):
            store.fetch_to(LISTED, tmp_path / "a.tif")

    assert not raised.value.systemic
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_busy_for_a_moment_is_asked_again() -> None:
    def busy_at_first(request: BaseHTTPRequestHandler, number: int) -> None:
        _answer(request, 503, b"<Error><Code>SlowDown</Code></Error>") if number == 1 else _answer(
            request, 200, CONTENT
        )

    with _server(busy_at_first) as endpoint:
        assert Store("s3://chips", _keys(endpoint)).read(LISTED) == CONTENT


def test_a_server_that_stays_busy_is_a_failed_transfer() -> None:
    requests = []

    def busy(request: BaseHTTPRequestHandler, number: int) -> None:
        requests.append(number)
        _answer(request, 503, b"<Error><Code>SlowDown</Code><Message>Too fast</Message></Error>")

    with (
        _server(busy) as endpoint,
        pytest.raises(TransferFailed, match=r"SlowDown, Too fast.*run again later"),
    ):
        Store("s3://chips", _keys(endpoint, max_attempts=2)).read(LISTED)

    assert len(requests) == 2, "the two layers of retries multiply"


def test_no_server_is_a_failed_transfer_soon() -> None:
    began = time.monotonic()
    store = Store("s3://chips", _keys(f"http://127.0.0.1:{free_port()}", max_attempts=2))

    with pytest.raises(TransferFailed, match=r"Could not connect.*Check AWS_ENDPOINT_URL_S3"):
        store.list()

    assert time.monotonic() - began < 5


@pytest.mark.parametrize("length", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_an_object_of_another_size_than_listed_is_not_read(length: int) -> None:
    def ignores_if_match(request: BaseHTTPRequestHandler, _: int) -> None:
        _answer(request, 200, (CONTENT + b"more")[:length])

    with _server(ignores_if_match) as endpoint, pytest.raises(ObjectChanged, match=rf"got {length} bytes"):
        Store("s3://chips", _keys(endpoint)).read(LISTED)


def test_a_body_without_end_is_cut_off_at_the_listed_size() -> None:
    sent = []

    def endless(request: BaseHTTPRequestHandler, _: int) -> None:
        request.send_response(200)
        request.send_header("ETag", f'"{ETAG}"')
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        try:
            for _ in range(1000):  # 1 GB, if it is let
                request.wfile.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
                sent.append(1)
        except ConnectionError:
            request.close_connection = True

    with _server(endless) as endpoint:
        store = Store("s3://chips", _keys(endpoint, max_attempts=1))
        with pytest.raises(TransferFailed, match=r"expected 1048576"):
            store.read(LISTED)
        with pytest.raises(StorageError, match=r"did not say how long"):
            store.read("a.tif")

    assert len(sent) < 50
