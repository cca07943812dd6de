"""Requests to one S3 bucket, and their retries, on s3fs.

Belongs here: the connection, and what is tried again. Two layers retry, and they do not multiply: the AWS
SDK repeats a request that got no answer or a busy one (mode "standard", `max_attempts`), and `download`
repeats a GET whose body broke midway, which the SDK does not. s3fs's own retries are switched off.
Does not belong here: keys, listings and files (`bucket.py`).
"""

import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from clay_assets.storage.errors import ObjectChanged, StorageError
from clay_assets.storage.s3_errors import broken_transfer, named
from clay_assets.storage.types import S3Options, StoredObject

if TYPE_CHECKING:  # imported when the first request is made: a store of local files needs none of it
    from s3fs import S3FileSystem

MAX_CONNECTIONS = 64  # at once to one server; the SDK's default of 10 would hold up 16 reading threads
CONNECT_TIMEOUT = 10  # seconds
READ_TIMEOUT = 60  # seconds without a single byte
CHUNK = 1 << 20  # bytes taken from a body at a time
FIRST_PAUSE = 0.2  # seconds before a broken download begins again, doubled each time
LONGEST_PAUSE = 20  # seconds


class _BrokenError(Exception):
    """A body ended early or late, or the connection did: worth another GET."""


def connect(options: S3Options) -> "S3FileSystem":
    """An s3fs filesystem of its own, with a client that is ready. Empty options are left to the AWS SDK."""
    import s3fs

    client = {"region_name": options.region_name or None, "verify": options.verify}
    filesystem = s3fs.S3FileSystem(
        anon=options.use_unsigned_session,
        key=options.aws_access_key_id or None,
        secret=options.aws_secret_access_key or None,
        token=options.aws_session_token or None,
        endpoint_url=options.endpoint_url or None,
        use_ssl=options.use_ssl,
        client_kwargs={name: value for name, value in client.items() if value is not None},
        config_kwargs={
            "max_pool_connections": MAX_CONNECTIONS,
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "retries": {"mode": "standard", "total_max_attempts": options.max_attempts},
        },
        skip_instance_cache=True,  # s3fs would hand a store made after a change of AWS_* an older client
        **({"profile": options.profile_name} if options.profile_name else {}),
    )
    filesystem.retries = 1
    filesystem.connect()
    return filesystem


class S3Client:
    """Requests to one bucket from any number of threads. Connects with the first one."""

    def __init__(self, bucket: str, options: S3Options) -> None:
        self.bucket = bucket
        self.options = options
        self._lock = threading.Lock()
        self._connected: S3FileSystem | None = None

    def url(self, name: str) -> str:
        """The URL of an object by its full name in the bucket."""
        return f"s3://{self.bucket}/{name}".rstrip("/")

    def request(self, operation: str, name: str, **parameters: object) -> dict[str, Any]:
        """One call of the S3 API.

        Args:
            operation: as boto3 names it, e.g. `head_object`.
            name: of the object or prefix, for messages.
            **parameters: as boto3 names them, without Bucket.

        Raises:
            StorageError: What went wrong.
        """
        answer: dict[str, Any] = self._run(
            name, lambda s3: s3._call_s3(operation, Bucket=self.bucket, **parameters)
        )
        return answer

    def download(
        self,
        name: str,
        sink: Callable[[bytes], object],
        restart: Callable[[], object],
        size: int | None = None,
        etag: str | None = None,
        span: str | None = None,
    ) -> StoredObject:
        """Gives an object's body to `sink`, piece by piece.

        Args:
            name: of the object.
            sink: takes a piece.
            restart: forgets the pieces so far, because the transfer broke and begins again.
            size: bytes to expect; None: as many as the server announces.
            etag: of the version to get; None: the latest.
            span: the Range header; None: the whole object.

        Raises:
            ObjectChanged: The server has another version.
            StorageError: What went wrong.
        """
        request = {"IfMatch": f'"{etag}"'} if etag is not None else {}
        if span is not None:
            request["Range"] = span

        async def transfer(s3: "S3FileSystem") -> StoredObject:
            answer = await s3._call_s3("get_object", Bucket=self.bucket, Key=name, **request)
            try:
                found = self._announced(name, answer, size, etag)
                await _pour(answer["Body"], found.size, sink)
            finally:
                answer["Body"].close()
            return found

        for attempt in range(1, self.options.max_attempts + 1):
            try:
                found: StoredObject = self._run(name, transfer)
                return found
            except _BrokenError as error:
                broken = str(error)
                restart()
            if attempt < self.options.max_attempts:
                pause = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE)
                time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads the retries of many threads
        raise named(ConnectionError(broken), self.url(name), self.options)

    def _run(self, name: str, call: Callable[["S3FileSystem"], Awaitable[Any]]) -> Any:  # noqa: ANN401 - the call's
        """Runs a coroutine on s3fs's event loop, waits for it, and names what went wrong."""
        from fsspec.asyn import sync

        try:
            with self._lock:
                if self._connected is None:
                    self._connected = connect(self.options)
            return sync(self._connected.loop, call, self._connected)
        except _BrokenError:
            raise
        except Exception as error:
            translated = named(error, self.url(name), self.options)
            if translated is error:
                raise
            raise translated from None

    def _announced(
        self, name: str, answer: dict[str, Any], size: int | None, etag: str | None
    ) -> StoredObject:
        """What the server is about to send, if that is what was asked for."""
        length = answer.get("ContentLength", size)
        got = answer.get("ETag", "").strip('"')
        if length is None:
            raise StorageError(
                f"{self.url(name)}: the server did not say how long it is. Use an S3 server that does."
            )
        if size not in (None, length) or etag not in (None, got):  # a server may ignore If-Match
            raise ObjectChanged(
                f"{self.url(name)} is not the object that was listed: got {length} bytes, ETag {got}; "
                f"expected {size} bytes, ETag {etag}. List it again, and run again."
            )
        return StoredObject(self.url(name), length, got)


async def _pour(body: Any, size: int, sink: Callable[[bytes], object]) -> None:  # noqa: ANN401 - aiobotocore's body
    """Moves exactly `size` bytes; stops within one chunk of them, whatever the server sends."""
    received = 0
    try:
        while received <= size and (chunk := await body.read(CHUNK)):
            received += len(chunk)
            sink(chunk)
    except Exception as error:
        if not broken_transfer(error):
            raise
        raise _BrokenError(
            f"the connection broke after {received} of {size} bytes ({type(error).__name__})"
        ) from None
    if received != size:
        raise _BrokenError(f"got {received} bytes, or more; expected {size}")
