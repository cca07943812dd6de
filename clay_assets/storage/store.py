"""`Store`: a folder or a prefix of a bucket behind one interface. Parses addresses, keys and URLs."""

import io
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


class Store:
    """One folder, or one `s3://`, `gs://` or `az://bucket/prefix`. Any number of threads may use it.

    An object is identified by its key relative to the store, its full URL, or the `StoredObject` of a
    listing, which requests exactly the content that was listed. The key "" is the store's own address, for a
    store that is a single object, such as a checkpoint. Every method but `url` raises a `StorageError`:
    ObjectMissing, ObjectChanged (not the object that was listed), AccessDenied, TransferFailed,
    BucketMissing, FolderMissing, DiskFull or Misconfigured. `list` and `folders` of a prefix without objects
    are empty.

    Attributes:
        uri: An absolute path, or `scheme://bucket/prefix` without a slash at the end.
        is_local: Whether it is a folder on this machine.
    """

    def __init__(self, uri: str | os.PathLike[str], options: S3Options | None = None) -> None:
        """Parse the address; reach no network and touch no file.

        Args:
            uri: A folder (relative to the current directory) or `scheme://bucket/prefix`. In `az://` the
                bucket is a container of the account AZURE_STORAGE_ACCOUNT_NAME.
            options: How to reach the cloud; ignored for a folder.

        Raises:
            Misconfigured: The address is of neither kind.
        """
        self.uri = _parsed(os.fspath(uri))
        self.is_local = "://" not in self.uri
        self._options = options or S3Options()

    @cached_property
    def _place(self) -> "Folder | Bucket":
        """The folder or bucket, created at the first request; the address is checked earlier."""
        if self.is_local:
            return Folder(self.uri)
        from clay_assets.storage.bucket import Bucket  # obstore and boto3 take 0.3 s to import

        return Bucket(self.uri, self._options)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def url(self, key: str = "") -> str:
        """Return the full URL of a key: an absolute path, or `scheme://bucket/prefix/key`."""
        return f"{self.uri.rstrip('/')}/{key}" if key else self.uri

    def folders(self) -> list[str]:
        """Return the sorted names of the folders one level down."""
        return sorted(self._place.folders())

    def list(self, prefix: str = "") -> list[StoredObject]:
        """Return every object whose key begins with `prefix`, however deep, sorted by URL.

        As on S3, `prefix` is the beginning of a string: end it with a slash to mean a folder. Files and
        folders whose name begins with a dot are left out, and so are local links that leave the store.
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
        return self._place.read(self._key(target), _listed(target))

    def fetch_to(self, target: StoredObject | str, path: str | os.PathLike[str]) -> None:
        """Copy one object into a local file, with one GET; the file appears when it is complete."""
        with local_errors(os.fspath(path)), replacing(Path(path)) as file:
            self._place.copy(self._key(target), _listed(target), file)

    def open(self, target: StoredObject | str) -> BinaryIO:
        """Open an object for reading parts of it, such as a Parquet footer, all of one version.

        Reading from the file raises a `StorageError`, too.
        """
        return self._place.open(self._key(target), _listed(target))

    def write(self, target: str, data: bytes) -> None:
        """Store an object, replacing an earlier one. Readers see the old or the new one, never a mixture."""
        self._place.write(self._key(target), io.BytesIO(data))

    def put(self, target: str, path: str | os.PathLike[str]) -> None:
        """Store a local file as an object, as `write` does, without loading it into memory.

        Raises:
            FileNotFoundError: There is no local file to store.
        """
        with Path(path).open("rb") as file:
            self._place.write(self._key(target), file)

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


def _listed(target: StoredObject | str) -> StoredObject | None:
    return target if isinstance(target, StoredObject) else None


def _parsed(address: str) -> str:
    """Return an absolute path, or a bucket's address without slashes at the end."""
    scheme, separator, rest = address.partition("://")
    if address and not separator:
        return os.path.abspath(Path(address).expanduser())  # noqa: PTH100 - resolve() would change the user's spelling
    if scheme not in ("s3", "gs", "az"):
        got = f"scheme {scheme}://" if separator else "nothing"
        raise Misconfigured(
            f"A store is a folder (data/chips, /mnt/chips) or s3://, gs:// or az://bucket/prefix; got {got}. "
            "Write a local folder without file://."
        )
    bucket, _, prefix = rest.partition("/")
    # Names that the clouds accept; an access point's ARN is not supported, its alias is.
    if re.fullmatch(r"[A-Za-z0-9._-]{1,255}", bucket):
        return f"{scheme}://{bucket}/{prefix.strip('/')}".rstrip("/")
    # The message leaves out text that may hold a secret, which may hold slashes: s3://key:sec/ret@bucket.
    if ":" in bucket or "@" in address:
        raise Misconfigured(
            f"The {scheme}:// address holds credentials, or a : or @ that looks like them. Leave them out of "
            "the address: set the variables of the cloud's own tools, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or a profile."
        )
    raise Misconfigured(f"{address}: got {bucket!r} as the bucket's name; expected {scheme}://bucket/prefix.")
