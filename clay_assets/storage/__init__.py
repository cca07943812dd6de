"""Bytes in and out of a folder or a bucket (S3, Google Cloud, Azure), through one class: `Store`.

Lists, reads whole objects, writes atomically, with errors that say what to do. Does not know what the bytes
mean, nor Dagster (`dagster/resources.py` turns configuration into a `Store`).

    store.py        Store: the public class; addresses, keys and URLs
    folder.py       the local folder behind a Store; replacing a local file as a whole
    bucket.py       the prefix of a bucket behind a Store: requests of obstore
    ranges.py       an object of a bucket as a file that is read in parts
    connection.py   obstore's client: credentials, endpoints, certificates and time limits
    interruption.py gives up requests of a process that is being stopped
    translation.py  exceptions of obstore and boto3 → the errors below
    errors.py       error classes; retrying what another run replaces
    types.py        StoredObject, S3Options
"""

from clay_assets.storage.errors import AccessDenied as AccessDenied
from clay_assets.storage.errors import BucketMissing as BucketMissing
from clay_assets.storage.errors import DiskFull as DiskFull
from clay_assets.storage.errors import FolderMissing as FolderMissing
from clay_assets.storage.errors import Misconfigured as Misconfigured
from clay_assets.storage.errors import ObjectChanged as ObjectChanged
from clay_assets.storage.errors import ObjectMissing as ObjectMissing
from clay_assets.storage.errors import StorageError as StorageError
from clay_assets.storage.errors import StoreDenied as StoreDenied
from clay_assets.storage.errors import SystemicError as SystemicError
from clay_assets.storage.errors import TransferFailed as TransferFailed
from clay_assets.storage.errors import again_if_replaced as again_if_replaced
from clay_assets.storage.folder import replacing as replacing
from clay_assets.storage.folder import temporary_errors as temporary_errors
from clay_assets.storage.store import Store as Store
from clay_assets.storage.types import S3Options as S3Options
from clay_assets.storage.types import StoredObject as StoredObject
