"""A prefix of a bucket (S3, Google Cloud) or a container (Azure) as a place of objects.

Belongs here: keys, listings, and how reading, writing and seeking become obstore's requests. Does not belong
here: the connection (`connection.py`) and the words for what went wrong (`answers.py`).
Nothing is cached: each listing asks the server, 1,000 objects a request.
"""

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from clay_assets.storage.answers import BrokenAnswer, CutShort, NotPartial, named
from clay_assets.storage.connection import connect
from clay_assets.storage.errors import AccessDenied, ObjectChanged, ObjectMissing, StorageError
from clay_assets.storage.folder import named_errors, replacing
from clay_assets.storage.types import S3Options, StoredObject

if TYPE_CHECKING:
    from obstore import Bytes, GetOptions, GetResult

READ_AHEAD = 1 << 20  # bytes: a GeoParquet footer, or a column chunk of a few hundred embeddings, in one GET
CHUNK = 1 << 20  # bytes of a download on their way to a file
PART = 16 << 20  # bytes of a large file's part; S3 takes 5 MiB to 5 GiB
PARTS_AT_ONCE = 4  # held in memory
MAX_PARTS = 10_000  # of an object
PAGE = 1000  # entries a server lists at a time

T = TypeVar("T")


class Bucket:
    """The objects below one prefix; the methods are those of `Store`, with keys relative to the prefix.

    Connects with the first request.
    """

    def __init__(self, scheme: str, name: str, prefix: str, options: S3Options) -> None:
        self._scheme, self._bucket, self._options = scheme, name, options
        self._prefix = f"{prefix}/" if prefix else ""
        self._lock = threading.Lock()
        self._connected: Any = None

    def folders(self) -> list[str]:
        """The names one level down that end with a slash."""
        import obstore

        def ask() -> Sequence[str]:
            with self._requests(self._prefix, of_store=True) as remote:
                return obstore.list_with_delimiter(remote, self._prefix.rstrip("/") or None)[
                    "common_prefixes"
                ]

        found = self._whole(ask)
        names = [name.removeprefix(self._prefix).rstrip("/") for name in found]
        return [name for name in names if name and not name.startswith(".")]

    def list(self, prefix: str) -> list[StoredObject]:
        """Every object whose key begins with `prefix`."""
        if {".", ".."} & set(prefix.split("/")):
            return []  # no key holds these
        wanted = self._prefix + prefix
        below = {name.removeprefix(self._prefix): meta for name, meta in self._listed(wanted)}
        # "folder/", an empty marker that consoles leave, is listed as "folder".
        parents = {key[:end] for key in below for end in range(len(key)) if key[end] == "/"}
        return [
            StoredObject(self._url(meta["path"]), meta["size"], _unquoted(meta["e_tag"]))
            for key, meta in below.items()
            if not any(part.startswith(".") for part in key.split("/"))
            and not (meta["size"] == 0 and (key in parents or self._is_marker(key)))
        ]

    def stat(self, key: str) -> StoredObject:
        """Size and ETag, by a HEAD."""
        import obstore

        name = self._name(key)
        with self._requests(name) as remote:
            return self._found(obstore.head(remote, name))

    def read(self, key: str, expected: StoredObject | None) -> bytes:
        """A whole object, by one GET."""

        def take(body: "GetResult") -> bytes:
            data = bytes(body.bytes())
            found = self._found(body.meta)
            self._require_length(found, len(data), found.size)
            # The ETag of most objects is their MD5; what was listed has been compared already.
            if expected is None and md5(data, usedforsecurity=False).hexdigest() != found.etag:
                self._require_same(key, found)
            return data

        return self._answered(key, expected, None, take)

    def fetch_to(self, key: str, expected: StoredObject | None, path: Path) -> StoredObject:
        """An object into a file, by one GET."""

        def take(body: "GetResult") -> StoredObject:
            found = self._found(body.meta)
            with named_errors(str(path)), replacing(path) as file:
                for chunk in body.stream(min_chunk_size=CHUNK):
                    file.write(chunk)
                self._require_length(found, file.tell(), found.size)
            return found

        return self._answered(key, expected, None, take)

    def open(self, key: str, expected: StoredObject | None) -> BinaryIO:
        """A file whose reads are GETs of ranges of one version of the object."""
        found = expected or self.stat(key)
        return io.BufferedReader(_Ranges(self, key, found), READ_AHEAD)

    def read_range(self, key: str, expected: StoredObject, start: int, end: int) -> "Bytes | bytes":
        """The bytes from start to end of one version of an object."""

        def take(body: "GetResult") -> "Bytes":
            data = body.bytes()
            self._require_length(expected, len(data), end - start)
            return data

        try:
            return self._answered(key, expected, (start, end), take)
        except NotPartial:  # such as rclone's server, which calls a part the whole
            return self.read(key, expected)[start:end]

    def write(self, key: str, data: bytes) -> None:
        """One PUT."""
        self._put(key, data, use_multipart=False)

    def put(self, key: str, path: Path) -> None:
        """One PUT; of a large file, a multipart upload, whose object appears with the last request."""
        part = max(PART, -(-path.stat().st_size // MAX_PARTS))
        self._put(key, path, chunk_size=part, max_concurrency=PARTS_AT_ONCE)

    def delete(self, key: str) -> None:
        """One DELETE. Azure and Google Cloud say that there was no object, S3 does not."""
        import obstore

        with suppress(ObjectMissing), self._requests(self._name(key)) as remote:
            obstore.delete(remote, self._name(key))

    def _put(self, key: str, content: bytes | Path, **how: Any) -> None:  # noqa: ANN401 - obstore's
        import obstore

        with self._requests(self._name(key), of_store=True) as remote:
            obstore.put(remote, self._name(key), content, **how)

    def _answered(
        self,
        key: str,
        expected: StoredObject | None,
        span: tuple[int, int] | None,
        take: "Callable[[GetResult], T]",
    ) -> T:
        """What `take` makes of an object's content, asked for again where the answer is broken.

        obstore repeats requests that fail. What looks like an answer and is none, it hands on: cut where it
        continued another one, or with the length or the ETag of something else.
        """
        cut = False
        for attempt in range(1, self._options.max_attempts + 1):
            try:
                with self._body(key, expected, span) as body:
                    return take(body)
            except BrokenAnswer as error:
                # obstore gives up a continuation at once if it is of another ETag, or after all attempts: it
                # does not say which, and attempts of attempts would be many.
                if attempt == self._options.max_attempts or (cut and isinstance(error, CutShort)):
                    raise
                cut = isinstance(error, CutShort)
            except ObjectChanged:
                if attempt == self._options.max_attempts or not self._is_unchanged(key, expected):
                    raise
        raise AssertionError  # unreachable: there is at least one attempt

    def _whole(self, ask: "Callable[[], T]") -> T:
        """What a request gives, asked again while its answer is broken."""
        for _ in range(self._options.max_attempts - 1):
            with suppress(BrokenAnswer):
                return ask()
        return ask()

    def _is_unchanged(self, key: str, expected: StoredObject | None) -> bool:
        with suppress(StorageError):
            return self.stat(key) == expected
        return False

    def _require_length(self, found: StoredObject, got: int, wanted: int) -> None:
        if got != wanted:
            raise BrokenAnswer(
                f"{found.url}: the server sent {got:,} of {wanted:,} bytes, in every attempt."
                " Check the network, and run again."
            )

    def _require_same(self, key: str, found: StoredObject) -> None:
        listed = self.stat(key)
        if listed != found:
            raise BrokenAnswer(
                f"{found.url}: the server sent {found.size:,} bytes, ETag {found.etag}, and says that it has"
                f" {listed.size:,} bytes, ETag {listed.etag}, in every attempt. Run again."
            )

    @contextmanager
    def _body(
        self, key: str, expected: StoredObject | None, span: tuple[int, int] | None = None
    ) -> "Iterator[GetResult]":
        """An answer to a GET whose content is still to come, if it is of the object that was asked for."""
        import obstore

        name = self._name(key)
        options: GetOptions = {}
        if expected is not None:
            options["if_match"] = f'"{expected.etag}"'
        if span is not None:
            options["range"] = span
        with self._requests(name) as remote:
            body = obstore.get(remote, name, options=options)
            found = self._found(body.meta)
            listed = expected or found
            if (found.size, found.etag) != (listed.size, listed.etag):  # a server may ignore If-Match
                raise ObjectChanged(
                    f"{found.url} is not the object that was listed: got {found.size} bytes, ETag "
                    f"{found.etag}; expected {listed.size} bytes, ETag {listed.etag}. List it again, and run "
                    "again."
                )
            yield body

    def _listed(self, wanted: str) -> Iterator[tuple[str, Any]]:
        """Full names that begin with `wanted`, and what the server says of each."""
        import obstore

        folder, slash, start = wanted.rpartition("/")
        offset = wanted[:-1] if start else None  # obstore lists whole folders; names come sorted
        broken = 0
        while True:
            try:
                with self._requests(wanted, of_store=True) as remote:
                    for page in obstore.list(remote, folder or None, offset=offset, chunk_size=PAGE):
                        for meta in page:
                            name = offset = meta["path"]
                            if name.startswith(wanted) and len(name) > len(folder + slash):
                                yield name, meta
                            elif start and name > wanted:
                                return
                return
            except BrokenAnswer:  # go on behind the last name
                broken += 1
                if broken == self._options.max_attempts:
                    raise

    def _is_marker(self, key: str) -> bool:
        """Whether an empty object is called `key/` rather than `key`."""
        try:
            self.stat(key)
        except StorageError as error:
            return isinstance(error, ObjectMissing)
        return False

    @contextmanager
    def _requests(self, name: str, *, of_store: bool = False) -> Iterator[Any]:
        """The connection, for requests whose errors are named after the object."""
        try:
            with self._lock:
                if self._connected is None:
                    self._connected = connect(self._scheme, self._bucket, self._options)
            yield self._connected
        except Exception as error:
            translated = named(error, self._url(name), self._options, of_store=of_store)
            if translated is error:
                raise
            if isinstance(translated, ObjectMissing) and not of_store:
                with suppress(AccessDenied):  # a 404 without a body does not say which of the two is missing
                    next(self._listed(f"{name}/"), None)
            raise translated from None

    def _found(self, meta: Any) -> StoredObject:  # noqa: ANN401 - a dictionary with the types of obstore's stubs
        return StoredObject(self._url(meta["path"]), meta["size"], _unquoted(meta["e_tag"]))

    def _name(self, key: str) -> str:
        return self._prefix + key if key else self._prefix.rstrip("/")

    def _url(self, name: str) -> str:
        return f"{self._scheme}://{self._bucket}/{name}".rstrip("/")


def _unquoted(etag: str | None) -> str:
    return (etag or "").strip('"')


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

    def readall(self) -> bytes:  # the inherited one would ask for 8 kB at a time
        return self.read(max(0, self._found.size - self._position)) or b""

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer, which typing cannot name in 3.11
        end = min(self._position + len(buffer), self._found.size)
        if end <= self._position:
            return 0
        buffer[: end - self._position] = data = self._bucket.read_range(
            self._key, self._found, self._position, end
        )
        self._position = end
        return len(data)
