import hashlib
import io
import logging
from pathlib import Path

import pytest
import torch

from clay_assets.embedding.checkpoint_cache import (
    CheckpointFacts,
    CheckpointMissing,
    cache_folder,
    fetch_checkpoint,
    known_facts,
    publish_facts,
)
from clay_assets.storage import BucketMissing, Store, StoredObject
from clay_assets_tests.checkpoints import checkpoint_stub, lightning_checkpoint_v15, write_checkpoint
from clay_assets_tests.s3_server import S3Bucket
from clay_model import CheckpointError


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def weights(value: float) -> bytes:
    content = checkpoint_stub(32)
    return saved(content | {"state_dict": {name: w + value for name, w in content["state_dict"].items()}})


WEIGHTS, OTHERS = weights(0), weights(1)
assert len(WEIGHTS) == len(OTHERS)
"""Checkpoints of some kB, of the same size."""


class CountingStore(Store):
    """A store that counts its downloads."""

    downloads = 0

    def fetch_to(self, target: StoredObject | str, path: str | Path) -> None:  # type: ignore[override]
        """As `Store`."""
        self.downloads += 1
        super().fetch_to(target, path)


def on_s3(bucket: S3Bucket) -> CountingStore:
    return CountingStore(bucket.uri("models/clay.ckpt"), bucket.options)


def test_checkpoint_on_s3_is_downloaded_and_hashed_once(bucket: S3Bucket, tmp_path: Path) -> None:
    bucket.store().write("models/clay.ckpt", WEIGHTS)
    store = on_s3(bucket)

    first = fetch_checkpoint(store, tmp_path / "cache")
    again = fetch_checkpoint(store, tmp_path / "cache")
    other_process = fetch_checkpoint(on_s3(bucket), tmp_path / "cache")

    assert store.downloads == 1
    assert first == again == other_process
    path, facts = first
    assert path.read_bytes() == WEIGHTS
    assert path.is_relative_to(tmp_path / "cache")
    assert (facts.sha256, facts.url) == (sha256(WEIGHTS), bucket.uri("models/clay.ckpt"))
    assert (facts.model, facts.untrained) == ("clay-v0-custom-32x1", False)


def test_checkpoint_that_changes_on_s3_is_downloaded_again(bucket: S3Bucket, tmp_path: Path) -> None:
    bucket.store().write("models/clay.ckpt", WEIGHTS)
    store = on_s3(bucket)
    first, _ = fetch_checkpoint(store, tmp_path)

    bucket.store().write("models/clay.ckpt", OTHERS)
    second, facts = fetch_checkpoint(store, tmp_path)

    assert store.downloads == 2
    assert facts.sha256 == sha256(OTHERS)
    assert second != first
    assert first.read_bytes() == WEIGHTS, "a run that still reads it must not see another"


def test_deleted_download_is_repeated(bucket: S3Bucket, tmp_path: Path) -> None:
    bucket.store().write("models/clay.ckpt", WEIGHTS)
    path, _ = fetch_checkpoint(on_s3(bucket), tmp_path)
    path.unlink()

    assert fetch_checkpoint(on_s3(bucket), tmp_path)[0].read_bytes() == WEIGHTS


def test_local_checkpoint_is_not_copied_and_hashed_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "clay.ckpt"
    file.write_bytes(WEIGHTS)
    first, described_first = fetch_checkpoint(Store(file), tmp_path / "cache")
    file.write_bytes(OTHERS)
    second, described_second = fetch_checkpoint(Store(file), tmp_path / "cache")

    assert first == second == file
    assert (described_first.sha256, described_second.sha256) == (sha256(WEIGHTS), sha256(OTHERS))
    assert not list(tmp_path.glob("cache/**/*.ckpt"))


def test_local_checkpoint_is_hashed_once(tmp_path: Path) -> None:
    file = tmp_path / "clay.ckpt"
    file.write_bytes(WEIGHTS)
    fetch_checkpoint(Store(file), tmp_path / "cache")
    (record,) = (tmp_path / "cache" / "checkpoints").iterdir()
    record.write_text(record.read_text().replace(sha256(WEIGHTS), "0" * 64))

    assert fetch_checkpoint(Store(file), tmp_path / "cache")[1].sha256 == "0" * 64


@pytest.mark.parametrize(
    "content", ["", "no JSON", "[]", "{}", '{"sha256": "0", "source": "of an earlier version"}']
)
def test_damaged_record_is_rewritten(tmp_path: Path, content: str) -> None:
    file = tmp_path / "clay.ckpt"
    file.write_bytes(WEIGHTS)
    fetch_checkpoint(Store(file), tmp_path / "cache")
    (record,) = (tmp_path / "cache" / "checkpoints").iterdir()
    record.write_text(content)

    assert fetch_checkpoint(Store(file), tmp_path / "cache")[1].sha256 == sha256(WEIGHTS)
    known = known_facts(Store(file), tmp_path / "cache", Store(tmp_path / "work"))
    assert known is not None
    assert known.sha256 == sha256(WEIGHTS)


def test_local_checkpoint_works_without_a_writable_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "clay.ckpt"
    file.write_bytes(WEIGHTS)
    (tmp_path / "cache").write_text("a file where the folder should be")

    with caplog.at_level(logging.WARNING):
        _, facts = fetch_checkpoint(Store(file), tmp_path / "cache")

    assert facts.sha256 == sha256(WEIGHTS)
    assert "hash cannot be stored" in caplog.text


@pytest.mark.parametrize("where", ["file", "folder", "s3"])
def test_missing_checkpoint_names_the_setting(where: str, bucket: S3Bucket, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    places = {
        "file": Store(tmp_path / "none.ckpt"),
        "folder": Store(tmp_path / "folder"),
        "s3": bucket.store("none.ckpt"),
    }

    with pytest.raises(CheckpointMissing, match=r"no checkpoint at \S+: set CLAY_CHECKPOINT") as caught:
        fetch_checkpoint(places[where], tmp_path / "cache")

    assert caught.value.systemic
    with pytest.raises(CheckpointMissing):
        known_facts(places[where], tmp_path / "cache", Store(tmp_path / "work"))


def test_missing_bucket_has_its_own_error(bucket: S3Bucket, tmp_path: Path) -> None:
    with pytest.raises(BucketMissing):
        fetch_checkpoint(Store("s3://no-such-bucket/clay.ckpt", bucket.options), tmp_path)


def test_facts_are_known_from_the_cache_or_the_work_store(bucket: S3Bucket, tmp_path: Path) -> None:
    bucket.store().write("models/clay.ckpt", WEIGHTS)
    store, work = on_s3(bucket), Store(tmp_path / "work")

    before = known_facts(store, tmp_path / "here", work)
    _, found = fetch_checkpoint(store, tmp_path / "here")
    publish_facts(work, found)

    assert before is None
    assert known_facts(store, tmp_path / "here", Store(tmp_path / "other work")) == found
    assert known_facts(store, tmp_path / "another machine", work) == found
    assert store.downloads == 1
    bucket.store().write("models/clay.ckpt", OTHERS)
    assert known_facts(store, tmp_path / "another machine", work) is None


def test_a_checkpoint_is_described_by_its_weights(tmp_path: Path) -> None:
    def facts(content: object) -> CheckpointFacts:
        path = write_checkpoint(tmp_path / "clay.ckpt", content)
        return fetch_checkpoint(Store(path), tmp_path / "cache")[1]

    described = [
        facts(content)
        for content in (checkpoint_stub(512, untrained=True), lightning_checkpoint_v15("small"))
    ]

    assert [(found.model, found.untrained) for found in described] == [
        ("clay-v0-custom-512x1", True),
        ("clay-v1.5-small", False),
    ]


def test_a_file_that_is_not_a_checkpoint_is_refused_and_not_cached(tmp_path: Path) -> None:
    (tmp_path / "clay.ckpt").write_bytes(b"<html>Not Found</html>")

    for _ in range(2):
        with pytest.raises(CheckpointError):
            fetch_checkpoint(Store(tmp_path / "clay.ckpt"), tmp_path / "cache")


def test_cache_is_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "clay-assets"

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "clay-assets"
