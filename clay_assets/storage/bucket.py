"""The prefix of a bucket (S3, Google Cloud) or a container (Azure) behind a `Store`.

Belongs here: keys, listings, and how reading, writing and seeking become requests of obstore. Does not belong
here: the connection (`connection.py`) and error messages (`translation.py`).
Nothing is cached: each listing asks the server, 1,000 objects a request.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import obstore

from clay_assets.storage.connection import Connection
from clay_assets.storage.errors import ObjectChanged, ObjectMissing, StorageError
from clay_assets.storage.translation import BrokenAnswer, NotPartial
from clay_assets.storage.types import S3Options, StoredObject

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult

READ_AHEAD = 1 << 20  # bytes: a GeoParquet footer, or a column chunk of a few hundred embeddings, in one GET
CHUNK = 1 << 20  # bytes of a download held in memory
PART = 16 << 20  # bytes of a large file's part; S3 takes 5 MiB to 5 GiB
PARTS_AT_ONCE = 4  # held in memory
MAX_PARTS = 10_000  # of an object
PAGE = 1000  # entries a server lists at a time

T = TypeVar("T")


class Bucket:
    """The objects below one prefix; keys are relative to it. Connects with the first request."""

    def __init__(self, scheme: str, name: str, prefix: str, options: S3Options) -> None:
        self._connection = Connection(scheme, name, options)
        self._prefix = f"{prefix}/" if prefix else ""

    def folders(self) -> list[str]:
        """Return the names of the folders one level down."""
        found = self._connection.request(
            self._prefix,
            lambda remote: obstore.list_with_delimiter(remote, self._prefix.rstrip("/") or None),
            of_store=True,
        )
        names = [name.removeprefix(self._prefix).rstrip("/") for name in found["common_prefixes"]]
        return [name for name in names if name and not name.startswith(".")]

    def list(self, prefix: str) -> list[StoredObject]:
        """Return every object whose key begins with `prefix`."""
        below = self._listed(self._prefix + prefix)
        found = [item for name, item in below if "/." not in f"/{name.removeprefix(self._prefix)}"]
        # "folder/", an empty marker that consoles create, is listed as "folder".
        parents = {item.url.rpartition("/")[0] for item in found}
        return [item for item in found if item.size or not (item.url in parents or self._is_marker(item))]

    def stat(self, key: str) -> StoredObject:
        """Return size and ETag, with one HEAD."""
        name = self._name(key)
        return self._connection.request(name, lambda remote: self._found(obstore.head(remote, name)))

    def read(self, key: str, expected: StoredObject | None, span: tuple[int, int] | None = None) -> bytes:
        """Return a whole object, or a span of its bytes, with one GET."""

        def take(body: "GetResult") -> tuple[bytes, int]:
            data = bytes(body.bytes())
            # The ETag of most objects is their MD5. Without it, ask whether the server has what it sent.
            if expected is None and md5(data, usedforsecurity=False).hexdigest() != _etag(body.meta):
                _require_same(self._found(body.meta), self.stat(key), BrokenAnswer)
            return data, len(data)

        try:
            return self._get(key, expected, span, take)
        except NotPartial:  # e.g. rclone's server, which declares a part to be the whole object
            return self.read(key, expected)[slice(*span or (None, None))]

    def copy_to(self, key: str, expected: StoredObject | None, file: BinaryIO) -> StoredObject:
        """Copy an object into an open file, with one GET."""

        def take(body: "GetResult") -> tuple[StoredObject, int]:
            file.seek(0)
            file.truncate()
            for chunk in body.stream(min_chunk_size=CHUNK):
                file.write(chunk)
                self._connection.waiting.answered()
            return self._found(body.meta), file.tell()

        return self._get(key, expected, None, take)

    def open(self, key: str, expected: StoredObject | None) -> BinaryIO:
        """Return a file whose reads are range GETs of one version of the object."""
        return io.BufferedReader(_Ranges(self, key, expected or self.stat(key)), READ_AHEAD)

    def write(self, key: str, content: bytes | Path) -> None:
        """Store an object with one PUT, or with a multipart upload, which appears with its last request."""
        name = self._name(key)
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        part = max(PART, -(-size // MAX_PARTS))

        def pieces(file: BinaryIO) -> Iterator[bytes]:
            while piece := file.read(part):
                self._connection.waiting.answered()  # a longer upload does not count as silence
                yield piece

        def put(remote: Any) -> None:  # noqa: ANN401 - obstore's client
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
                if size <= part:
                    obstore.put(remote, name, file.read(), use_multipart=False)
                else:
                    obstore.put(remote, name, pieces(file), chunk_size=part, max_concurrency=PARTS_AT_ONCE)

        self._connection.request(name, put, of_store=True)

    def delete(self, key: str) -> None:
        """Send one DELETE. Azure and Google Cloud report a missing object, S3 does not."""
        name = self._name(key)
        with suppress(ObjectMissing):
            self._connection.request(name, lambda remote: obstore.delete(remote, name))

    def _get(
        self,
        key: str,
        expected: StoredObject | None,
        span: tuple[int, int] | None,
        take: "Callable[[GetResult], tuple[T, int]]",
    ) -> T:
        """Pass an object's content to `take`, if it is complete and the requested object; return the result.

        Args:
            key: Key of the object.
            expected: The object as it was listed.
            span: Range of bytes; None: all.
            take: Returns its result and the number of bytes received.
        """
        name = self._name(key)
        options: GetOptions = {}
        if expected is not None:
            options["if_match"] = f'"{expected.etag}"'
        if span is not None:
            options["range"] = span

        def ask(remote: Any) -> T:  # noqa: ANN401 - obstore's client
            body = obstore.get(remote, name, options=options)
            found = self._found(body.meta)
            if expected is not None and not _is_same(found, expected):  # a server may ignore If-Match
                is_there = _is_same(self.stat(key), expected)
                _require_same(found, expected, BrokenAnswer if is_there else ObjectChanged)
            result, got = take(body)
            wanted = found.size if span is None else span[1] - span[0]
            if got != wanted:
                raise BrokenAnswer(
                    f"{found.url}: the server sent {got:,} of {wanted:,} bytes, in every attempt."
                    " Check the network, and run again."
                )
            return result

        return self._connection.request(name, ask)

    def _listed(self, wanted: str) -> Iterator[tuple[str, StoredObject]]:
        """Yield the full names that begin with `wanted`, and their objects."""
        folder, slash, start = wanted.rpartition("/")
        offset = wanted[:-1] if start else None  # obstore lists whole folders; names come sorted
        pages: Iterator[Any] | None = None

        def next_page(remote: Any) -> Any:  # noqa: ANN401 - obstore's client, its dictionaries
            nonlocal pages
            pages = pages or obstore.list(remote, folder or None, offset=offset, chunk_size=PAGE)
            try:
                return next(pages, None)
            except Exception:  # a broken response: continue after the last name
                pages = None
                raise

        while page := self._connection.request(wanted, next_page, of_store=True):
            for meta in page:
                name = offset = meta["path"]
                if name.startswith(wanted) and len(name) > len(folder + slash):
                    yield name, self._found(meta)
                elif start and name > wanted:
                    return

    def _is_marker(self, item: StoredObject) -> bool:
        """Return whether an empty object is called `key/` rather than `key`."""
        try:
            self.stat(item.url.removeprefix(self._connection.url(self._prefix) + "/"))
        except StorageError as error:
            return isinstance(error, ObjectMissing)
        return False

    def _found(self, meta: Any) -> StoredObject:  # noqa: ANN401 - a dictionary with the types of obstore's stubs
        return StoredObject(self._connection.url(meta["path"]), meta["size"], _etag(meta))

    def _name(self, key: str) -> str:
        return self._prefix + key if key else self._prefix.rstrip("/")


def _etag(meta: Any) -> str:  # noqa: ANN401 - as above
    return (meta["e_tag"] or "").strip('"')


def _is_same(one: StoredObject, other: StoredObject) -> bool:
    return (one.size, one.etag) == (other.size, other.etag)


def _require_same(found: StoredObject, listed: StoredObject, kind: type[StorageError]) -> None:
    if not _is_same(found, listed):
        raise kind(
            f"{found.url} is not the object that was listed: got {found.size} bytes, ETag {found.etag};"
            f" expected {listed.size} bytes, ETag {listed.etag}. List it again, and run again."
        )


class _Ranges(io.RawIOBase):
    """One version of an object as a seekable file."""

    def __init__(self, bucket: Bucket, key: str, found: StoredObject) -> None:
        self._bucket, self._key, self._found = bucket, key, found
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._found.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readall(self) -> bytes:  # the inherited method would request 8 kB at a time
        return self.read(max(0, self._found.size - self._position)) or b""

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer, which typing cannot name in 3.11
        end = min(self._position + len(buffer), self._found.size)
        if end <= self._position:
            return 0
        data = self._bucket.read(self._key, self._found, (self._position, end))
        buffer[: len(data)] = data
        self._position = end
        return len(data)
