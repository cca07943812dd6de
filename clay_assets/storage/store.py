"""`Store`: a folder or a prefix of a bucket behind one interface.

Belongs here: addresses (which URIs are accepted, how a key becomes a URL and back) and the choice between the
two kinds of place. Does not belong here: how either kind works (`folder.py`, `bucket.py`).
"""

import os
import re
from pathlib import Path
from typing import BinaryIO, Protocol

from clay_assets.storage.bucket import Bucket
from clay_assets.storage.errors import Misconfigured, ObjectMissing, StorageError
from clay_assets.storage.folder import Folder
from clay_assets.storage.types import S3Options, StoredObject

SCHEMES = ("s3", "gs", "az")
"""Of S3, Google Cloud Storage, and a container of the Azure account that AZURE_STORAGE_ACCOUNT_NAME names."""

# What the clouds accept as a bucket's name; an access point's ARN is not supported, its alias is.
BUCKET_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Place(Protocol):
    """What a folder and a bucket both do. Keys are relative to the place's root; "" is the root itself."""

    def folders(self) -> list[str]: ...  # noqa: D102 - each is described in Store
    def list(self, prefix: str) -> list[StoredObject]: ...  # noqa: D102
    def stat(self, key: str) -> StoredObject: ...  # noqa: D102
    def read(self, key: str, expected: StoredObject | None) -> bytes: ...  # noqa: D102
    def fetch_to(self, key: str, expected: StoredObject | None, path: Path) -> StoredObject: ...  # noqa: D102
    def open(self, key: str, expected: StoredObject | None) -> BinaryIO: ...  # noqa: D102
    def write(self, key: str, data: bytes) -> None: ...  # noqa: D102
    def put(self, key: str, path: Path) -> None: ...  # noqa: D102
    def delete(self, key: str) -> None: ...  # noqa: D102


class Store:
    """One folder, or one `s3://`, `gs://` or `az://bucket/prefix`. Any number of threads may use it at once.

    Wherever an object is named, its key relative to the store, its full URL, or the `StoredObject` of a
    listing is accepted. A `StoredObject` asks for exactly the content that was listed.
    The key "" is the store's own address, for a store that is a single object, such as a checkpoint.

    Attributes:
        uri: an absolute path, or `scheme://bucket/prefix` without a slash at the end.
        is_local: whether it is a folder of this machine.
    """

    def __init__(self, uri: str | os.PathLike[str], options: S3Options | None = None) -> None:
        """Takes the address; reaches no network and touches no file.

        Args:
            uri: a folder (relative ones count from the current directory) or `scheme://bucket/prefix`.
            options: how to reach the cloud; of no effect on a folder.

        Raises:
            Misconfigured: The address is of neither kind.
        """
        text = os.fspath(uri)
        scheme = text.partition("://")[0]
        self.is_local = scheme not in SCHEMES or "://" not in text
        self._place: Place
        if self.is_local:
            folder = _folder(text)
            self.uri = str(folder)
            self._place = Folder(folder)
        else:
            bucket, prefix = _bucket_and_prefix(scheme, text)
            self.uri = f"{scheme}://{bucket}/{prefix}".rstrip("/")
            self._place = Bucket(scheme, bucket, prefix, options or S3Options())

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def url(self, key: str = "") -> str:
        """The full URL of a key: an absolute path, or `scheme://bucket/prefix/key`."""
        return f"{self.uri.rstrip('/')}/{key}" if key else self.uri

    def folders(self) -> list[str]:
        """The sorted names of the folders one level down.

        Raises:
            StorageError: As `list`.
        """
        return sorted(self._place.folders())

    def list(self, prefix: str = "") -> list[StoredObject]:
        """Every object whose key begins with `prefix`, however deep, sorted by URL.

        As on S3, `prefix` is the beginning of a string: end it with a slash to mean a folder. Files and
        folders whose name begins with a dot are left out, and so are local links that leave the store.

        Raises:
            BucketMissing: The bucket does not exist. (A prefix without objects is an empty list.)
            FolderMissing: The store's own folder does not exist. (A folder below it: an empty list.)
            StorageError: As for any request: AccessDenied, TransferFailed, Misconfigured.
        """
        return sorted(self._place.list(prefix), key=lambda found: found.url)

    def stat(self, target: StoredObject | str = "") -> StoredObject:
        """Size and ETag of one object, without its content.

        Raises:
            ObjectMissing: There is no such object.
            StorageError: As for any request.
        """
        return self._place.stat(self._key(target))

    def exists(self, target: StoredObject | str = "") -> bool:
        """Whether there is an object of this name. A missing bucket is an error, not False."""
        try:
            self.stat(target)
        except ObjectMissing:
            return False
        return True

    def read(self, target: StoredObject | str) -> bytes:
        """One whole object, by one GET. Never more bytes than were listed or announced.

        Raises:
            ObjectChanged: It is not the object that was listed.
            ObjectMissing: There is no such object.
            TransferFailed: The transfer broke in every attempt.
            StorageError: As for any request.
        """
        return self._place.read(self._key(target), _listed(target))

    def fetch_to(self, target: StoredObject | str, path: str | os.PathLike[str]) -> StoredObject:
        """Copies one object into a local file, in small pieces; the file appears when it is whole.

        Returns:
            The object as it was fetched.

        Raises:
            StorageError: As `read`.
        """
        return self._place.fetch_to(self._key(target), _listed(target), Path(path))

    def open(self, target: StoredObject | str) -> BinaryIO:
        """A seekable file for reading parts of an object, such as a Parquet footer.

        In a bucket every part comes from the same version of the object.

        Raises:
            StorageError: As `read`, here and while reading.
        """
        return self._place.open(self._key(target), _listed(target))

    def write(self, target: str, data: bytes) -> None:
        """Stores an object, in place of an earlier one. A reader sees the old or the new one, never half.

        Raises:
            StorageError: As for any request.
        """
        self._place.write(self._key(target), data)

    def put(self, target: str, path: str | os.PathLike[str]) -> None:
        """Stores a local file as an object, as `write` does, without holding it in memory.

        Args:
            target: the object's key or URL.
            path: a local file.

        Raises:
            FileNotFoundError: There is no local file to store.
            StorageError: As for any request.
        """
        self._place.put(self._key(target), Path(path))

    def delete(self, target: StoredObject | str) -> None:
        """Removes an object. That there is none is no error.

        Raises:
            StorageError: As for any request.
        """
        self._place.delete(self._key(target))

    def _key(self, target: StoredObject | str) -> str:
        """The key within this store, refused where it would lead out of it."""
        name = target.url if isinstance(target, StoredObject) else target
        if name == self.uri:
            return ""
        key = name.removeprefix(self.uri.rstrip("/") + "/")
        if key == name and (name.startswith("/") or "://" in name):
            raise StorageError(
                f"{name} is not in the store {self.uri}. Read it through a store that holds it."
            )
        if {".", ".."} & set(key.split("/")) or "\0" in key:
            raise StorageError(
                f"{key!r} cannot be a key of {self.uri}: got '.', '..' or NUL; expected plain names."
            )
        return key


def _listed(target: StoredObject | str) -> StoredObject | None:
    return target if isinstance(target, StoredObject) else None


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
    # The text is not repeated where it may hold a secret, which may hold slashes: s3://key:sec/ret@bucket.
    if ":" in bucket or "@" in text:
        raise Misconfigured(
            f"The {scheme}:// address holds credentials, or a : or @ that looks like them. Leave them out of "
            "the address: set the variables of the cloud's own tools, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or a profile."
        )
    raise Misconfigured(f"{text}: got {bucket!r} as the bucket's name; expected {scheme}://bucket/prefix.")
