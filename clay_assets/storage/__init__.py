"""Bytes in and out of a folder or an S3 bucket, through one class: `Store`.

Belongs here: listing, whole-object reads, atomic writes, retries of broken transfers, and errors that a
person can act on. Does not belong here: what the bytes mean (`chips`, `tables`, `tile_results`,
`geoparquet`), and Dagster (`resources/object_store.py` turns configuration into a `Store`).

    store.py    Store: the one public class; keys and URLs
    folder.py   a local folder behind it
    bucket.py   a prefix of an S3 bucket behind it
    s3_client.py  its requests and their retries, on s3fs
    s3_errors.py  what the S3 client raises → the errors below
    errors.py   the errors, and which of them no other object would escape
    types.py    StoredObject, S3Options
"""

from clay_assets.storage.errors import (
    AccessDenied,
    BucketMissing,
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
