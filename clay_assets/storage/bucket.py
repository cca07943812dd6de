"""The prefix of a bucket (S3, Google Cloud) or a container (Azure) behind a `Store`: requests of obstore.

Not here: the connection (`connection.py`) and error messages (`translation.py`). Nothing is cached: each
listing asks the server, 1,000 objects a request.
"""

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import md5
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import obstore

from clay_assets.storage.connection import Client, connect
from clay_assets.storage.errors import AccessDenied, ObjectChanged, ObjectMissing, StorageError
from clay_assets.storage.interruption import Waiting
from clay_assets.storage.ranges import RangeReader
from clay_assets.storage.translation import BrokenAnswer, CutShort, translate_error
from clay_assets.storage.types import S3Options, StoredObject

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta

READ_AHEAD = 1 << 20  # bytes: a GeoParquet footer, or a column chunk of a few hundred embeddings, in one GET
CHUNK = 1 << 20  # bytes that a download into a file holds in memory, at least
PART = 16 << 20  # bytes of a large file's part; S3 takes 5 MiB to 5 GiB
MAX_PARTS = 10_000  # of an object

T = TypeVar("T")


class Bucket:
    """The objects below one prefix; keys are relative to it. Connects with the first request."""

    def __init__(self, uri: str, options: S3Options) -> None:
        self._scheme, _, rest = uri.partition("://")
        self._bucket, _, prefix = rest.partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._options = options
        self._waiting = Waiting()
        self._lock = threading.Lock()
        self._client: Client | None = None

    def folders(self) -> list[str]:
        """Return the names of the folders one level down."""
        below = self._prefix.rstrip("/") or None
        found = self._request(
            self._prefix, lambda client: obstore.list_with_delimiter(client, below), of_store=True
        )
        names = [name.removeprefix(self._prefix).rstrip("/") for name in found["common_prefixes"]]
        return [name for name in names if name and not name.startswith(".")]

    def list(self, prefix: str) -> list[StoredObject]:
        """Return every object whose key begins with `prefix`."""
        wanted, root = self._prefix + prefix, self._url(self._prefix)
        folder, _, start = wanted.rpartition("/")
        offset = wanted[:-1] if start else None  # obstore lists whole folders; names come sorted
        found: list[StoredObject] = []
        pages: Iterator[Sequence[ObjectMeta]] | None = None

        def next_page(client: Client) -> "Sequence[ObjectMeta] | None":
            nonlocal pages
            pages = pages or obstore.list(client, folder or None, offset=offset, chunk_size=1000)
            try:
                return next(pages, None)
            except Exception:  # a page that breaks ends the listing: begin another after the last name
                pages = None
                raise

        while page := self._request(wanted, next_page, of_store=True):  # all attempts for each page
            found += [self._found(meta) for meta in page if meta["path"].startswith(wanted)]
            # Not the last name: "folder/", an empty marker that consoles create, is listed as "folder".
            offset = max(meta["path"] for meta in page)
            if offset > wanted and not offset.startswith(wanted):
                break
        visible = [item for item in found if "/." not in item.url[len(root) :]]
        folders = {item.url.rpartition("/")[0] for item in visible}
        return [
            item
            for item in visible
            if item.size or not (item.url in folders or self._is_marker(item.url[len(root) + 1 :]))
        ]

    def stat(self, key: str) -> StoredObject:
        """Return size and ETag, with one HEAD."""
        name = self._name(key)
        return self._request(name, lambda client: self._found(obstore.head(client, name)))

    def read(self, key: str, expected: StoredObject | None, span: tuple[int, int] | None = None) -> bytes:
        """Return a whole object, or a span of its bytes, with one GET.

        Checks that the content is complete and belongs to `expected`, or to the server's present object if
        that is None.
        """
        name = self._name(key)

        def get(client: Client) -> bytes:
            body = self._get(client, key, expected, span)
            found = self._found(body.meta)
            data = bytes(body.bytes())
            _require_length(found.url, len(data), found.size if span is None else span[1] - span[0])
            # The ETag of most objects is their MD5. Without it, ask whether the server has what it sent.
            if expected is None and md5(data, usedforsecurity=False).hexdigest() != found.etag:
                there = self.stat(key)
                if found != there:
                    raise _another(found, there, BrokenAnswer)
            return data

        return self._request(name, get)

    def copy(self, key: str, expected: StoredObject | None, file: BinaryIO) -> None:
        """Write a whole object into an empty file, with one GET, without loading it into memory."""
        wanted = expected or self.stat(key)

        def get(client: Client) -> None:
            file.seek(0)
            file.truncate()  # what an attempt that broke has written
            for chunk in self._get(client, key, wanted).stream(min_chunk_size=CHUNK):
                file.write(chunk)
                self._waiting.answered()  # a longer download does not count as silence
            _require_length(wanted.url, file.tell(), wanted.size)

        self._request(self._name(key), get)

    def open(self, key: str, expected: StoredObject | None) -> BinaryIO:
        """Return a file whose reads are range GETs of one version of the object."""
        wanted = expected or self.stat(key)

        def read(span: tuple[int, int] | None) -> bytes:
            return self.read(key, wanted, span)

        return io.BufferedReader(RangeReader(read, wanted.size), READ_AHEAD)

    def write(self, key: str, source: BinaryIO) -> None:
        """Store an object with one PUT, or with a multipart upload, which appears with its last request."""
        name = self._name(key)
        size = source.seek(0, io.SEEK_END)
        part = max(PART, -(-size // MAX_PARTS))

        def pieces() -> Iterator[bytes]:
            source.seek(0)
            while piece := source.read(part):
                self._waiting.answered()  # a longer upload does not count as silence
                yield piece

        def put(client: Client) -> None:  # holds four parts in memory
            obstore.put(client, name, pieces(), use_multipart=size > part, chunk_size=part, max_concurrency=4)

        self._request(name, put, of_store=True)

    def delete(self, key: str) -> None:
        """Send one DELETE. Azure and Google Cloud report a missing object, S3 does not."""
        name = self._name(key)
        with suppress(ObjectMissing):
            self._request(name, lambda client: obstore.delete(client, name))

    def _is_marker(self, key: str) -> bool:
        """Return whether an empty object is called `key/` rather than `key`."""
        try:
            self.stat(key)
        except (AccessDenied, ObjectMissing) as error:  # one that is denied is listed, and fails on reading
            return isinstance(error, ObjectMissing)
        return False

    def _get(
        self, client: Client, key: str, expected: StoredObject | None, span: tuple[int, int] | None = None
    ) -> "GetResult":
        """Begin one GET of an object or a span of it; raise if it is not the `expected` object."""
        options: GetOptions = {}
        if expected is not None:
            options["if_match"] = f'"{expected.etag}"'
        if span is not None:
            options["range"] = span
        body = obstore.get(client, self._name(key), options=options)
        found = self._found(body.meta)
        if expected is not None and found != expected:  # a server may ignore If-Match
            is_there = self.stat(key) == expected
            raise _another(found, expected, BrokenAnswer if is_there else ObjectChanged)
        return body

    def _request(self, name: str, ask: Callable[[Client], T], *, of_store: bool = False) -> T:
        """Return what `ask` returns for obstore's client; repeat it while the response is broken.

        obstore retries failed requests. But it returns a body that is truncated after a resumed download, or
        that has the length or the ETag of another object. `of_store`: a refusal affects the whole store.
        """
        cuts, remaining = 0, self._options.max_attempts
        while True:
            try:
                return self._waiting.call(lambda: ask(self._connected()))
            except Exception as error:
                failure = translate_error(error, self._url(name), self._options, of_store=of_store)
            remaining -= 1
            # obstore has used up its attempts to resume a truncated body: request the whole object once more.
            cuts += isinstance(failure, CutShort)
            if not remaining or cuts > 1 or not isinstance(failure, BrokenAnswer):
                break
        if isinstance(failure, ObjectMissing) and not of_store:
            with suppress(AccessDenied):  # a 404 without a body may also mean that there is no such bucket
                self._request(name, lambda client: next(obstore.list(client, name), None), of_store=True)
        raise failure from None

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = connect(self._scheme, self._bucket, self._options)
            return self._client

    def _found(self, meta: "ObjectMeta") -> StoredObject:
        return StoredObject(self._url(meta["path"]), meta["size"], (meta["e_tag"] or "").strip('"'))

    def _name(self, key: str) -> str:
        return self._prefix + key if key else self._prefix.rstrip("/")

    def _url(self, name: str) -> str:
        return f"{self._scheme}://{self._bucket}/{name}".rstrip("/")


def _require_length(url: str, got: int, wanted: int) -> None:
    if got != wanted:
        raise BrokenAnswer(
            f"{url}: the server sent {got:,} of {wanted:,} bytes, in every attempt."
            " Check the network, and run again."
        )


def _another(found: StoredObject, listed: StoredObject, kind: type[StorageError]) -> StorageError:
    return kind(
        f"{found.url} is not the object that was listed: got {found.size} bytes, ETag {found.etag};"
        f" expected {listed.size} bytes, ETag {listed.etag}. List it again, and run again."
    )
