"""Bytes in and out of a folder or a bucket (S3, Google Cloud, Azure), through one class: `Store`.

Belongs here: listing, whole-object reads, atomic writes, and errors that say what to do. Does not belong
here: what the bytes mean (`chips`, `results`, `publishing`), and Dagster (`dagster/object_store.py` turns
configuration into a `Store`).

    store.py        Store: the public class; addresses, keys and URLs
    folder.py       the local folder behind a Store
    bucket.py       the prefix of a bucket behind a Store, on obstore
    connection.py   credentials, endpoints, certificates and time limits of a bucket
    interruption.py gives up requests of a process that is being stopped
    translation.py  exceptions of obstore and boto3 → the errors below
    errors.py       error classes; retrying what another run replaces
    types.py        StoredObject, S3Options
"""

from clay_assets.storage.errors import (
    AccessDenied,
    BucketMissing,
    DiskFull,
    FolderMissing,
    Misconfigured,
    ObjectChanged,
    ObjectMissing,
    StorageError,
    StoreDenied,
    TransferFailed,
    again_if_replaced,
)
from clay_assets.storage.folder import temporary_errors
from clay_assets.storage.store import Store
from clay_assets.storage.types import S3Options, StoredObject

__all__ = [
    "AccessDenied",
    "BucketMissing",
    "DiskFull",
    "FolderMissing",
    "Misconfigured",
    "ObjectChanged",
    "ObjectMissing",
    "S3Options",
    "StorageError",
    "Store",
    "StoreDenied",
    "StoredObject",
    "TransferFailed",
    "again_if_replaced",
    "temporary_errors",
]
