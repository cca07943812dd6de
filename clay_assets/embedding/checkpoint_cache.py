"""Downloads a checkpoint once, and hashes and describes it once.

The cache is in the user's cache folder and can be deleted at any time. The description is also kept in the
work store, so that a machine without the file knows which results to look for.
"""

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from clay_assets.storage import FolderMissing, ObjectMissing, StorageError, Store, StoredObject, replacing

log = logging.getLogger(__name__)


class CheckpointMissing(StorageError):
    """There is no checkpoint at the address."""

    systemic = True


class CheckpointChanged(StorageError):
    """The checkpoint was replaced after the run was planned."""

    systemic = True


@dataclass(frozen=True)
class CheckpointFacts:
    """Description of a checkpoint.

    Attributes:
        url: Address.
        etag: ETag of the object, or a file's time and size.
        size: Bytes.
        sha256: Hash of its bytes, in hexadecimal.
        model: Model and size, e.g. `clay-v0-small`.
        untrained: Whether the file declares that its weights were never trained.
    """

    url: str
    etag: str
    size: int
    sha256: str
    model: str
    untrained: bool


@dataclass(frozen=True)
class LocalCheckpoint:
    """A checkpoint on the local disk, with its description."""

    path: Path
    facts: CheckpointFacts


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/clay-assets`, or `~/.cache/clay-assets`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clay-assets"


def fetch_checkpoint(store: Store, cache: Path) -> LocalCheckpoint:
    """Download a checkpoint unless it is local or cached; describe it unless its description is cached.

    Args:
        store: Its own address is the checkpoint, a local file or an object.
        cache: Folder for downloads and descriptions.

    Returns:
        The file and its description. A file that changed (by ETag, or by size and time) counts as new.

    Raises:
        CheckpointMissing: If there is none.
        CheckpointError: If it is not a checkpoint of a known model.
        StorageError: If it cannot be fetched.
    """
    found = _stat(store)
    record = cache / _record_key(found)
    path = Path(found.url) if store.is_local else record.with_suffix(".ckpt")
    known = _read_facts(record)
    if known is None or not path.is_file():
        if not store.is_local:
            store.fetch_to(found, path)
        known = _describe(path, found)
        _keep(record, known)
    return LocalCheckpoint(path, known)


def known_facts(store: Store, cache: Path, work: Store) -> CheckpointFacts | None:
    """Return the description of a checkpoint in the cache or the work store; None if neither has it.

    The checkpoint itself is not read.

    Args:
        store: Its own address is the checkpoint.
        cache: Folder for downloads and descriptions.
        work: Store of results.

    Raises:
        CheckpointMissing: If there is none.
        StorageError: If a store refuses.
    """
    found = _stat(store)
    known = _read_facts(cache / _record_key(found))
    if known is not None:
        return known
    try:
        return _parsed(work.read(_record_key(found)))
    except (ObjectMissing, FolderMissing):
        return None


def publish_facts(work: Store, facts: CheckpointFacts) -> None:
    """Store a checkpoint's description in the work store, for machines that do not have the file.

    Raises:
        StorageError: If it cannot be stored.
    """
    key = _record_key(StoredObject(facts.url, facts.size, facts.etag))
    if not work.exists(key):
        work.write(key, json.dumps(asdict(facts)).encode())


def _describe(path: Path, found: StoredObject) -> CheckpointFacts:
    from clay_model.checkpoint import describe_checkpoint  # imports PyTorch

    seen = describe_checkpoint(path)
    model = seen.spec.model_name(seen.model_size)
    return CheckpointFacts(found.url, found.etag, found.size, sha256_of(path), model, seen.untrained)


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stat(store: Store) -> StoredObject:
    try:
        return store.stat()
    except (ObjectMissing, FolderMissing):
        raise CheckpointMissing(
            f"no checkpoint at {store.uri}: set CLAY_CHECKPOINT to a Lightning .ckpt of Clay v0 or v1.5,"
            " local or s3:// (v0's is s3://clay-model-ckpt/v0/clay-small-70MT-1100T-10E.ckpt);"
            " `make demo` creates an untrained one to try the pipeline"
        ) from None


def _record_key(found: StoredObject) -> str:
    """Return the key of a checkpoint's description, below the cache and in the work store."""
    key = hashlib.sha256(f"{found.url}\n{found.etag}\n{found.size}".encode()).hexdigest()[:24]
    return f"checkpoints/{key}.json"


def _read_facts(record: Path) -> CheckpointFacts | None:
    try:
        return _parsed(record.read_bytes())
    except OSError:
        return None


def _parsed(data: bytes) -> CheckpointFacts | None:
    try:
        return CheckpointFacts(**json.loads(data))
    except (ValueError, TypeError):  # damaged, or of another version: replaced
        return None


def _keep(record: Path, facts: CheckpointFacts) -> None:
    try:
        with replacing(record) as file:  # two runs may do this at the same time: both records are correct
            file.write(json.dumps(asdict(facts)).encode())
    except OSError as error:  # the only effect: each run hashes the file again
        log.warning("the checkpoint's hash cannot be stored in %s: %s", record.parent, error)
