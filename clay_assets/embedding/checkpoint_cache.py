"""Downloads a checkpoint once, and hashes and describes it once.

The cache is in the user's cache folder and can be deleted at any time. The description is also kept in the
work store, so that a machine without the file knows which results to look for. Functions raise a
`CheckpointMissing` if there is no checkpoint, and another `StorageError` if a store refuses.
"""

import hashlib
import json
import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from clay_assets.storage import FolderMissing, ObjectMissing, Store, StoredObject, SystemicError, replacing

log = logging.getLogger(__name__)


class CheckpointMissing(SystemicError):
    """There is no checkpoint at the address."""


class CheckpointChanged(SystemicError):
    """The checkpoint was replaced after the run was planned."""


@dataclass(frozen=True)
class CheckpointFacts:
    """Description of a checkpoint."""

    url: str
    etag: str  # of the object, or a file's time and size
    size: int  # bytes
    sha256: str  # of its bytes, in hexadecimal
    model: str  # model and size, e.g. `clay-v0-small`
    untrained: bool  # whether the file declares that its weights were never trained


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/clay-assets`, or `~/.cache/clay-assets`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clay-assets"


def fetch_checkpoint(store: Store, cache: Path) -> tuple[Path, CheckpointFacts]:
    """Download a checkpoint unless it is local or cached; describe it unless its description is cached.

    Return the local file and its description. A file that changed (by ETag, or by size and time) counts as
    new.

    Raises:
        CheckpointError: If it is not a checkpoint of a known model.
    """
    found = _stat(store)
    record = cache / _record_key(found)
    path = Path(found.url) if store.is_local else record.with_suffix(".ckpt")
    facts = _cached(record)
    if facts is None or not path.is_file():
        from clay_model.checkpoint import describe_checkpoint  # imports PyTorch

        if not store.is_local:
            store.fetch_to(found, path)
        seen = describe_checkpoint(path)
        model = seen.spec.model_name(seen.model_size)
        facts = CheckpointFacts(found.url, found.etag, found.size, sha256_of(path), model, seen.untrained)
        try:
            with replacing(record) as file:  # two runs may do this at the same time: both records are correct
                file.write(json.dumps(asdict(facts)).encode())
        except OSError as error:  # the only effect: each run hashes the file again
            log.warning("the checkpoint's hash cannot be stored in %s: %s", record.parent, error)
    return path, facts


def known_facts(store: Store, cache: Path, work: Store) -> CheckpointFacts | None:
    """Return a checkpoint's description from the cache or the work store; None if neither has it."""
    key = _record_key(_stat(store))
    with suppress(ObjectMissing, FolderMissing):
        return _cached(cache / key) or _parsed(work.read(key))
    return None


def publish_facts(work: Store, facts: CheckpointFacts) -> None:
    """Store a checkpoint's description in the work store, for machines that do not have the file."""
    key = _record_key(StoredObject(facts.url, facts.size, facts.etag))
    if not work.exists(key):
        work.write(key, json.dumps(asdict(facts)).encode())


def sha256_of(path: Path) -> str:
    """Return the hash of a file's bytes, in hexadecimal."""
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


def _cached(record: Path) -> CheckpointFacts | None:
    with suppress(OSError):
        return _parsed(record.read_bytes())
    return None


def _parsed(data: bytes) -> CheckpointFacts | None:
    try:
        return CheckpointFacts(**json.loads(data))
    except (ValueError, TypeError):  # damaged, or of another version: replaced
        return None
