"""`Store`: a folder or a prefix of a bucket behind one interface.

Belongs here: addresses (which URIs are accepted, how a key becomes a URL and back). Does not belong here: how
either kind of store works (`folder.py`, `bucket.py`).
"""

import os
import re
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clay_assets.storage.errors import Misconfigured, ObjectMissing, StorageError
from clay_assets.storage.folder import Folder, local_errors, replacing
from clay_assets.storage.types import S3Options, StoredObject

if TYPE_CHECKING:
    from clay_assets.storage.bucket import Bucket

SCHEMES = ("s3", "gs", "az")
"""Schemes of S3, Google Cloud Storage, and containers of the Azure account AZURE_STORAGE_ACCOUNT_NAME."""

# Bucket names that the clouds accept; an access point's ARN is not supported, its alias is.
BUCKET_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Store:
    """One folder, or one `s3://`, `gs://` or `az://bucket/prefix`. Any number of threads may use it.

    An object is identified by its key relative to the store, its full URL, or the `StoredObject` of a
    listing, which requests exactly the content that was listed. The key "" is the store's own address, for a
    store that is a single object, such as a checkpoint. Every method but `url` raises a `StorageError`:
    ObjectMissing, ObjectChanged (not the object that was listed), AccessDenied, TransferFailed,
    BucketMissing, FolderMissing, DiskFull or Misconfigured.

    Attributes:
        uri: An absolute path, or `scheme://bucket/prefix` without a slash at the end.
        is_local: Whether it is a folder on this machine.
    """

    def __init__(self, uri: str | os.PathLike[str], options: S3Options | None = None) -> None:
        """Parse the address; reach no network and touch no file.

        Args:
            uri: A folder (relative to the current directory) or `scheme://bucket/prefix`.
            options: How to reach the cloud; ignored for a folder.

        Raises:
            Misconfigured: The address is of neither kind.
        """
        text = os.fspath(uri)
        scheme = text.partition("://")[0]
        self.is_local = scheme not in SCHEMES or "://" not in text
        self._options = options or S3Options()
        if self.is_local:
            self.uri = str(_folder(text))
        else:
            bucket, prefix = _bucket_and_prefix(scheme, text)
            self.uri = f"{scheme}://{bucket}/{prefix}".rstrip("/")

    @cached_property
    def _place(self) -> "Folder | Bucket":
        """The folder or bucket, created at the first request; the address is checked earlier."""
        if self.is_local:
            return Folder(Path(self.uri))
        from clay_assets.storage.bucket import Bucket  # obstore and boto3 take 0.3 s to import

        scheme, _, rest = self.uri.partition("://")
        bucket, _, prefix = rest.partition("/")
        return Bucket(scheme, bucket, prefix, self._options)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def url(self, key: str = "") -> str:
        """Return the full URL of a key: an absolute path, or `scheme://bucket/prefix/key`."""
        return f"{self.uri.rstrip('/')}/{key}" if key else self.uri

    def folders(self) -> list[str]:
        """Return the sorted names of the folders one level down. Raises like `list`."""
        return sorted(self._place.folders())

    def list(self, prefix: str = "") -> list[StoredObject]:
        """Return every object whose key begins with `prefix`, however deep, sorted by URL.

        As on S3, `prefix` is the beginning of a string: end it with a slash to mean a folder. Files and
        folders whose name begins with a dot are left out, and so are local links that leave the store.

        Raises:
            BucketMissing, FolderMissing: The store itself does not exist. A prefix without objects is an
                empty list.
        """
        if {".", ".."} & set(prefix.split("/")):
            return []  # no key contains these
        return sorted(self._place.list(prefix), key=attrgetter("url"))

    def stat(self, target: StoredObject | str = "") -> StoredObject:
        """Return size and ETag of one object, without its content."""
        return self._place.stat(self._key(target))

    def exists(self, target: StoredObject | str = "") -> bool:
        """Return whether an object has this name. A missing bucket is an error, not False."""
        try:
            self.stat(target)
        except ObjectMissing:
            return False
        return True

    def read(self, target: StoredObject | str) -> bytes:
        """Return one whole object, with one GET; never more bytes than were listed or announced."""
        return self._place.read(self._key(target), target if isinstance(target, StoredObject) else None)

    def fetch_to(self, target: StoredObject | str, path: str | os.PathLike[str]) -> StoredObject:
        """Copy one object into a local file in small pieces; the file appears when it is complete.

        Returns:
            The object as it was fetched.
        """
        with local_errors(os.fspath(path)), replacing(Path(path)) as file:
            return self._place.copy_to(
                self._key(target), target if isinstance(target, StoredObject) else None, file
            )

    def open(self, target: StoredObject | str) -> BinaryIO:
        """Open an object for reading parts of it, such as a Parquet footer, all of one version.

        Raises:
            StorageError: Like `read`, here and while reading.
        """
        return self._place.open(self._key(target), target if isinstance(target, StoredObject) else None)

    def write(self, target: str, data: bytes) -> None:
        """Store an object, replacing an earlier one. Readers see the old or the new one, never a mixture."""
        self._place.write(self._key(target), data)

    def put(self, target: str, path: str | os.PathLike[str]) -> None:
        """Store a local file as an object, as `write` does, without loading it into memory.

        Raises:
            FileNotFoundError: There is no local file to store.
        """
        Path(path).stat()  # raises the caller's own error
        self._place.write(self._key(target), Path(path))

    def delete(self, target: StoredObject | str) -> None:
        """Remove an object. No error if there is none."""
        self._place.delete(self._key(target))

    def _key(self, target: StoredObject | str) -> str:
        """Return the key within this store; refuse one that leads out of it."""
        name = target.url if isinstance(target, StoredObject) else target
        if name == self.uri:
            return ""
        key = name.removeprefix(self.uri.rstrip("/") + "/")
        if key == name and (name.startswith("/") or "://" in name):
            raise StorageError(
                f"{name} is not in the store {self.uri}. Read it through a store that contains it."
            )
        if {".", ".."} & set(key.split("/")) or "\0" in key:
            raise StorageError(
                f"{key!r} cannot be a key of {self.uri}: got '.', '..' or NUL; expected plain names."
            )
        return key


def _folder(text: str) -> Path:
    scheme, separator, _ = text.partition("://")
    if separator or not text:
        got = f"scheme {scheme}://" if separator else "nothing"
        raise Misconfigured(
            f"A store is a folder (data/chips, /mnt/chips) or s3://, gs:// or az://bucket/prefix; got {got}. "
            "Write a local folder without file://."
        )
    return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100 - resolve() would change the user's spelling


def _bucket_and_prefix(scheme: str, text: str) -> tuple[str, str]:
    bucket, _, prefix = text.removeprefix(f"{scheme}://").partition("/")
    if BUCKET_NAME.fullmatch(bucket):
        return bucket, prefix.strip("/")
    # The message leaves out text that may hold a secret, which may hold slashes: s3://key:sec/ret@bucket.
    if ":" in bucket or "@" in text:
        raise Misconfigured(
            f"The {scheme}:// address holds credentials, or a : or @ that looks like them. Leave them out of "
            "the address: set the variables of the cloud's own tools, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or a profile."
        )
    raise Misconfigured(f"{text}: got {bucket!r} as the bucket's name; expected {scheme}://bucket/prefix.")
