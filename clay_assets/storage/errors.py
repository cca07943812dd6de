"""What can go wrong with a store, by what a caller does about it.

Belongs here: the error classes. Each message names the URL, what was found, and what to do next; none holds a
credential. How an exception of the S3 client becomes one of them: `s3_errors.py`.
"""

from typing import ClassVar


class StorageError(Exception):
    """A store could not do what was asked.

    Attributes:
        systemic: True where the next object would fail the same way (wrong credentials, no such bucket), so
            that a caller with many objects to go should stop; False where the trouble is this one object's.
    """

    systemic: ClassVar[bool] = False


class AccessDenied(StorageError):
    """This object may not be had: permissions or a policy forbid it, it is archived, or a link leaves."""


class StoreDenied(AccessDenied):
    """Nothing in the store may be had or kept: credentials are missing, wrong or expired, or forbid it."""

    systemic = True


class DiskFull(StorageError):
    """A disk of this machine has no space: that of a local store, or of the temporary folder."""

    systemic = True


class BucketMissing(StorageError):
    """The S3 bucket does not exist where it was looked for."""

    systemic = True


class FolderMissing(StorageError):
    """The local folder a store stands on does not exist."""

    systemic = True


class Misconfigured(StorageError):
    """The store's address or its S3 settings cannot be used as they are written."""

    systemic = True


class ObjectMissing(StorageError):
    """There is no object of this name."""


class ObjectChanged(StorageError):
    """The object is no longer the one that was listed: its ETag or its size differs."""


class TransferFailed(StorageError):
    """The transfer broke, or no server answered, in every attempt."""
