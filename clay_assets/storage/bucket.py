"""A prefix of an S3 bucket as a place of objects.

Belongs here: keys, listings, and how reading, writing and seeking become S3 requests. Does not belong here:
the connection and its retries (`s3_client.py`).
s3fs's directory cache is not used: each listing asks the server, 1,000 objects a request.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from clay_assets.storage.errors import AccessDenied, ObjectMissing, StorageError
from clay_assets.storage.folder import named_errors, replacing
from clay_assets.storage.s3_client import S3Client
from clay_assets.storage.types import S3Options, StoredObject

READ_AHEAD = 1 << 20  # bytes: a GeoParquet footer, or a column chunk of a few hundred embeddings, in one GET
LARGE = 1 << 30  # bytes of a file from which on it goes in parts: one PUT takes 5 GiB, and breaks as a whole
PART = 64 << 20  # bytes of a part, held in memory; S3 takes 5 MiB to 5 GiB
MAX_PARTS = 10_000  # of an object
# Of a part, as the SDK chooses; the server holds the completed object against them.
CHECKSUMS = ("ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256")


class Bucket:
    """The objects below one prefix; the methods are those of `Store`, with keys relative to the prefix."""

    def __init__(self, name: str, prefix: str, options: S3Options) -> None:
        self.client = S3Client(name, options)
        self._prefix = f"{prefix}/" if prefix else ""

    def folders(self) -> list[str]:
        """The names one level down that end with a slash."""
        pages = self._pages(self._prefix, Delimiter="/")
        prefixes = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ())]
        names = [prefix.removeprefix(self._prefix).rstrip("/") for prefix in prefixes]
        return [name for name in names if name and not name.startswith(".")]

    def list(self, prefix: str) -> list[StoredObject]:
        """Every object whose key begins with `prefix`."""
        found = []
        for page in self._pages(self._prefix + prefix):
            for entry in page.get("Contents", ()):
                name = entry["Key"]
                hidden = any(part.startswith(".") for part in name.removeprefix(self._prefix).split("/"))
                if not hidden and not name.endswith("/"):  # "folder/" is an empty marker that consoles leave
                    found.append(StoredObject(self.client.url(name), entry["Size"], entry["ETag"].strip('"')))
        return found

    def stat(self, key: str) -> StoredObject:
        """Size and ETag, by a HEAD."""
        name = self._name(key)
        try:
            head = self.client.request("head_object", name, Key=name)
        except ObjectMissing:
            with suppress(AccessDenied):  # whoever may not ask about the bucket keeps the first answer
                self.client.request(
                    "head_bucket", name
                )  # a HEAD's 404 does not say which of the two is missing
            raise
        return StoredObject(self.client.url(name), head["ContentLength"], head["ETag"].strip('"'))

    def read(self, key: str, expected: StoredObject | None) -> bytes:
        """A whole object, by one GET."""
        return self._bytes(key, *_version(expected))

    def fetch_to(self, key: str, expected: StoredObject | None, path: Path) -> StoredObject:
        """An object into a file, by one GET."""
        with named_errors(str(path)), replacing(path) as file:

            def restart() -> None:
                file.seek(0)
                file.truncate()

            return self.client.download(self._name(key), file.write, restart, *_version(expected))

    def open(self, key: str, expected: StoredObject | None) -> BinaryIO:
        """A file whose reads are GETs of ranges of one version of the object."""
        found = expected or self.stat(key)

        def read_range(start: int, end: int) -> bytes:
            return self._bytes(key, end - start, found.etag, f"bytes={start}-{end - 1}")

        return io.BufferedReader(_Ranges(found.size, read_range), READ_AHEAD)

    def write(self, key: str, data: bytes) -> None:
        """One PUT."""
        self._put(key, data)

    def put(self, key: str, path: Path) -> None:
        """One PUT, streamed from the file; of a large file, a multipart upload."""
        size = path.stat().st_size
        with path.open("rb") as file:
            if size < LARGE:
                self._put(key, file)
            else:
                self._put_in_parts(self._name(key), file, max(PART, -(-size // MAX_PARTS)))

    def delete(self, key: str) -> None:
        """One DELETE, which S3 answers alike whether the object existed or not."""
        self.client.request("delete_object", self._name(key), Key=self._name(key))

    def _name(self, key: str) -> str:
        return self._prefix + key if key else self._prefix.rstrip("/")

    def _bytes(self, key: str, size: int | None, etag: str | None, span: str | None = None) -> bytes:
        parts: list[bytes] = []
        self.client.download(self._name(key), parts.append, parts.clear, size, etag, span)
        return b"".join(parts)

    def _put(self, key: str, body: bytes | BinaryIO) -> None:
        self.client.request("put_object", self._name(key), Key=self._name(key), Body=body)

    def _put_in_parts(self, name: str, file: BinaryIO, part_size: int) -> None:
        """A multipart upload: the object appears, or replaces the earlier one, with the last request."""
        begun = self.client.request("create_multipart_upload", name, Key=name)
        upload = {"Key": name, "UploadId": begun["UploadId"]}
        parts: list[dict[str, Any]] = []
        try:
            while body := file.read(part_size):
                number = len(parts) + 1
                sent = self.client.request("upload_part", name, **upload, PartNumber=number, Body=body)
                said = {field: sent[field] for field in sent if field == "ETag" or field in CHECKSUMS}
                parts.append({"PartNumber": number, **said})
            whole = {"Parts": parts}
            self.client.request("complete_multipart_upload", name, **upload, MultipartUpload=whole)
        except BaseException:  # what is neither completed nor aborted is invisible, and paid for
            with suppress(StorageError):
                self.client.request("abort_multipart_upload", name, **upload)
            raise

    def _pages(self, prefix: str, **request: str) -> Iterator[dict[str, Any]]:
        """The answers to a LIST, one per 1,000 entries."""
        page = self.client.request("list_objects_v2", prefix, Prefix=prefix, **request)
        yield page
        while page.get("IsTruncated"):
            request["ContinuationToken"] = page["NextContinuationToken"]
            page = self.client.request("list_objects_v2", prefix, Prefix=prefix, **request)
            yield page


def _version(expected: StoredObject | None) -> tuple[int | None, str | None]:
    """Size and ETag to insist on."""
    return (expected.size, expected.etag) if expected else (None, None)


class _Ranges(io.RawIOBase):
    """A seekable file over a function that reads the bytes from start to end."""

    def __init__(self, size: int, read_range: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._read_range = read_range
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readall(self) -> bytes:  # the inherited one would ask for 8 kB at a time
        return self.read(max(0, self._size - self._position)) or b""

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer, which typing cannot name in 3.11
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        data = self._read_range(self._position, end)
        buffer[: len(data)] = data
        self._position = end
        return len(data)
