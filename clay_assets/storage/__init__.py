"""Bytes in and out of a folder or a bucket (S3, Google Cloud, Azure), through one class: `Store`.

Belongs here: listing, whole-object reads, atomic writes, and errors that a person can act on. Does not belong
here: what the bytes mean (`chips`, `results`, `publishing`), and Dagster (`dagster/object_store.py` turns
configuration into a `Store`).

    store.py       Store: the one public class; keys and URLs
    folder.py      a local folder behind it
    bucket.py      a prefix of a bucket behind it, on obstore
    connection.py  credentials, endpoints, certificates and time limits of a bucket
    answers.py     what the clients raise → the errors below
    errors.py      the errors, and which of them no other object would escape
    types.py       StoredObject, S3Options
    temporary.py   the temporary folder, when it is full or cannot be written
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
)
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
]
