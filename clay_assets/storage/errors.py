"""Error classes of a store. Each message names the URL, the cause and the remedy; none holds a credential."""

from collections.abc import Callable
from typing import ClassVar, TypeVar

T = TypeVar("T")

ATTEMPTS = 5  # of work whose object another run replaces


class StorageError(Exception):
    """An operation of a store failed."""

    systemic: ClassVar[bool] = False


class SystemicError(StorageError):
    """Every other object of the store would fail as well: a caller with many objects should stop."""

    systemic = True


class AccessDenied(StorageError):
    """Permissions forbid access to this object, it is archived, or a link leads out of the store."""


class StoreDenied(AccessDenied, SystemicError):
    """Credentials are missing, wrong or expired, or do not allow to list or to write."""


class DiskFull(SystemicError):
    """The disk of a local store or of the temporary folder has no space."""


class BucketMissing(SystemicError):
    """The bucket or container does not exist."""


class FolderMissing(SystemicError):
    """The folder of a local store does not exist."""


class Misconfigured(SystemicError):
    """The store's address or its settings cannot be used."""


class ObjectMissing(StorageError):
    """There is no object of this name."""


class ObjectChanged(StorageError):
    """The object is no longer the one that was listed: its ETag or its size differs."""


class TransferFailed(StorageError):
    """The transfer broke, or the server did not answer, in every attempt."""


def again_if_replaced(work: Callable[[], T]) -> T:
    """Call `work` again if another run replaced an object while `work` read it.

    Raises:
        ObjectChanged, ObjectMissing: If that happens in every attempt.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return work()
        except (ObjectChanged, ObjectMissing):
            continue
    return work()
