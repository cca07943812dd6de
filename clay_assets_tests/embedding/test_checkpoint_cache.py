import hashlib
import logging
from pathlib import Path

import pytest

from clay_assets.embedding.checkpoint_cache import (
    CheckpointMissing,
    cache_folder,
    fetch_checkpoint,
    known_sha256,
)
from clay_assets.storage import BucketMissing, Store, StoredObject
from clay_assets_tests.s3_server import S3Bucket


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class CountingStore(Store):
    """A store that counts its downloads."""

    downloads = 0

    def fetch_to(self, target: StoredObject | str, path: str | Path) -> StoredObject:  # type: ignore[override]
        """As any store."""
        self.downloads += 1
        return super().fetch_to(target, path)


def on_s3(bucket: S3Bucket) -> CountingStore:
    return CountingStore(bucket.uri("models/clay.ckpt"), bucket.options)


def test_checkpoint_on_s3_is_downloaded_and_hashed_once(bucket: S3Bucket, tmp_path: Path) -> None:
    bucket.store().write("models/clay.ckpt", b"weights")
    store = on_s3(bucket)

    first = fetch_checkpoint(store, tmp_path / "cache")
    again = fetch_checkpoint(store, tmp_path / "cache")
    other_process = fetch_checkpoint(on_s3(bucket), tmp_path / "cache")

    assert store.downloads == 1
    assert first == again == other_process
    assert first.path.read_bytes() == b"weights"
    assert first.path.is_relative_to(tmp_path / "cache")
    assert (first.sha256, first.source) == (sha256(b"weights"), bucket.uri("models/clay.ckpt"))


def test_checkpoint_that_changes_on_s3_is_fetched_anew(bucket: S3Bucket, tmp_path: Path) -> None:
    bucket.store().write("models/clay.ckpt", b"weights")
    store = on_s3(bucket)
    first = fetch_checkpoint(store, tmp_path)

    bucket.store().write("models/clay.ckpt", b"WEIGHTS")  # of the same size
    second = fetch_checkpoint(store, tmp_path)

    assert store.downloads == 2
    assert second.sha256 == sha256(b"WEIGHTS")
    assert second.path != first.path
    assert first.path.read_bytes() == b"weights", "a run that still reads it must not see another"


def test_download_that_was_deleted_is_made_again(bucket: S3Bucket, tmp_path: Path) -> None:
    bucket.store().write("models/clay.ckpt", b"weights")
    fetch_checkpoint(on_s3(bucket), tmp_path).path.unlink()

    assert fetch_checkpoint(on_s3(bucket), tmp_path).path.read_bytes() == b"weights"


def test_local_checkpoint_is_used_where_it_lies_and_hashed_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "clay.ckpt"
    file.write_bytes(b"weights")
    first = fetch_checkpoint(Store(file), tmp_path / "cache")
    file.write_bytes(b"other weights")
    second = fetch_checkpoint(Store(file), tmp_path / "cache")

    assert first.path == second.path == file
    assert (first.sha256, second.sha256) == (sha256(b"weights"), sha256(b"other weights"))
    assert not list(tmp_path.glob("cache/**/*.ckpt"))


def test_hash_of_a_local_checkpoint_is_not_worked_out_twice(tmp_path: Path) -> None:
    file = tmp_path / "clay.ckpt"
    file.write_bytes(b"weights")
    fetch_checkpoint(Store(file), tmp_path / "cache")
    (record,) = (tmp_path / "cache" / "checkpoints").iterdir()
    record.write_text(record.read_text().replace(sha256(b"weights"), "0" * 64))

    assert fetch_checkpoint(Store(file), tmp_path / "cache").sha256 == "0" * 64


@pytest.mark.parametrize("content", ["", "no JSON", "[]", "{}"])
def test_damaged_record_is_written_again(tmp_path: Path, content: str) -> None:
    file = tmp_path / "clay.ckpt"
    file.write_bytes(b"weights")
    fetch_checkpoint(Store(file), tmp_path / "cache")
    (record,) = (tmp_path / "cache" / "checkpoints").iterdir()
    record.write_text(content)

    assert fetch_checkpoint(Store(file), tmp_path / "cache").sha256 == sha256(b"weights")
    assert known_sha256(Store(file), tmp_path / "cache") == sha256(b"weights")


def test_local_checkpoint_needs_no_cache_that_can_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "clay.ckpt"
    file.write_bytes(b"weights")
    (tmp_path / "cache").write_text("a file where the folder should be")

    with caplog.at_level(logging.WARNING):
        found = fetch_checkpoint(Store(file), tmp_path / "cache")

    assert found.sha256 == sha256(b"weights")
    assert "hash cannot be kept" in caplog.text


@pytest.mark.parametrize("where", ["file", "folder", "s3"])
def test_missing_checkpoint_says_what_to_set(where: str, bucket: S3Bucket, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    places = {
        "file": Store(tmp_path / "none.ckpt"),
        "folder": Store(tmp_path / "folder"),
        "s3": bucket.store("none.ckpt"),
    }

    with pytest.raises(CheckpointMissing, match=r"no checkpoint at \S+: set CLAY_CHECKPOINT") as caught:
        fetch_checkpoint(places[where], tmp_path / "cache")

    assert caught.value.systemic
    assert known_sha256(places[where], tmp_path / "cache") is None


def test_missing_bucket_is_named_as_such(bucket: S3Bucket, tmp_path: Path) -> None:
    with pytest.raises(BucketMissing):
        fetch_checkpoint(Store("s3://no-such-bucket/clay.ckpt", bucket.options), tmp_path)


def test_hash_is_known_only_after_it_was_worked_out(bucket: S3Bucket, tmp_path: Path) -> None:
    bucket.store().write("models/clay.ckpt", b"weights")
    store = on_s3(bucket)

    before = known_sha256(store, tmp_path)
    fetch_checkpoint(store, tmp_path)

    assert (before, known_sha256(store, tmp_path)) == (None, sha256(b"weights"))
    assert store.downloads == 1


def test_cache_lies_in_the_user_s_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "clay-assets"

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "clay-assets"
