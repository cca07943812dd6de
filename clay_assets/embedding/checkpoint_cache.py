"""Checkpoints at hand: one on S3 is downloaded once, and each file is hashed once.

The cache lies in the user's cache folder. What is in it can be deleted at any time: it is then made again.
"""

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from clay_assets.storage import FolderMissing, ObjectMissing, StorageError, Store, StoredObject

log = logging.getLogger(__name__)


class CheckpointMissing(StorageError):
    """There is no checkpoint where the settings say; no tile can be embedded."""

    systemic = True


class CheckpointChanged(StorageError):
    """The checkpoint is no longer the one that a run was planned for."""

    systemic = True


@dataclass(frozen=True)
class LocalCheckpoint:
    """A checkpoint on this machine's disk.

    Attributes:
        path: Where it is.
        sha256: Of its bytes, in hexadecimal.
        source: The URL that the settings name.
    """

    path: Path
    sha256: str
    source: str


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/clay-assets`, or `~/.cache/clay-assets`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clay-assets"


def fetch_checkpoint(store: Store, cache: Path) -> LocalCheckpoint:
    """Bring a checkpoint here, unless it is here.

    Args:
        store: Whose own address is the checkpoint, a local file or an object on S3.
        cache: Folder for downloads and hashes.

    Returns:
        The file and its hash. One that changed since (by ETag, or by size and time) counts as new.

    Raises:
        CheckpointMissing: If there is none.
        StorageError: If it cannot be fetched.
    """
    try:
        found = store.stat()
    except (ObjectMissing, FolderMissing):
        raise CheckpointMissing(
            f"no checkpoint at {store.uri}: set CLAY_CHECKPOINT to a Lightning .ckpt of Clay v0, local or s3://"
            " (the released one is s3://clay-model-ckpt/v0/clay-small-70MT-1100T-10E.ckpt);"
            " `make demo` makes an untrained one to try the pipeline with"
        ) from None
    record = _record_of(found, cache)
    path = Path(found.url) if store.is_local else record.with_suffix(".ckpt")
    known = _recorded(record)
    if known is None or not path.is_file():
        if not store.is_local:
            store.fetch_to(found, path)
        known = sha256_of(path)
        _write_record(record, found, known)
    return LocalCheckpoint(path, known, found.url)


def known_sha256(store: Store, cache: Path) -> str | None:
    """The checkpoint's hash if this machine has worked it out before; nothing is downloaded or read for it.

    Args:
        store: Whose own address is the checkpoint.
        cache: Folder for downloads and hashes.

    Raises:
        StorageError: If the store refuses. That there is no checkpoint is no error here.
    """
    try:
        return _recorded(_record_of(store.stat(), cache))
    except (ObjectMissing, FolderMissing):
        return None


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record_of(found: StoredObject, cache: Path) -> Path:
    """Where the hash of a checkpoint in this state is kept."""
    key = hashlib.sha256(f"{found.url}\n{found.etag}\n{found.size}".encode()).hexdigest()[:24]
    return cache / "checkpoints" / f"{key}.json"


def _recorded(record: Path) -> str | None:
    try:
        return str(json.loads(record.read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_record(record: Path, found: StoredObject, sha256: str) -> None:
    facts = {"url": found.url, "etag": found.etag, "size": found.size, "sha256": sha256}
    partial = record.with_suffix(f".{os.getpid()}.part")
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(facts))
        partial.replace(record)  # two runs may do this at once: either record is right
    except OSError as error:  # a folder that cannot be written costs a hash a run, and no more
        log.warning("the checkpoint's hash cannot be kept in %s: %s", record.parent, error)
