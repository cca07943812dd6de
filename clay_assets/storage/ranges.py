"""`RangeReader`: reads an object as a file, one range GET a read."""

import errno
import io
import os
from collections.abc import Callable
from typing import Any

from clay_assets.storage.translation import NotPartial


class RangeReader(io.RawIOBase):
    """One version of an object as a seekable file."""

    def __init__(self, read: Callable[[tuple[int, int] | None], bytes], size: int) -> None:
        """`read` returns a span of the object's `size` bytes, or all of them for None."""
        self._read, self._size = read, size
        self._position = 0
        self._whole: bytes | None = None  # if the server cannot send parts

    def readable(self) -> bool:
        """As `io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """As `io.RawIOBase`."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As `io.RawIOBase`."""
        position = offset + (0, self._position, self._size)[whence]
        if position < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as of a local file
        self._position = position
        return position

    def readall(self) -> bytes:  # the inherited method would request 8 kB at a time
        """As `io.RawIOBase`."""
        return self.read(max(0, self._size - self._position)) or b""

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer, which typing cannot name in 3.11
        """As `io.RawIOBase`."""
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        data = self._part(self._position, end)
        buffer[: len(data)] = data
        self._position = end
        return len(data)

    def _part(self, start: int, end: int) -> bytes:
        if self._whole is None:
            try:
                return self._read((start, end))
            except NotPartial:  # e.g. rclone's server, which declares a part to be the whole object
                self._whole = self._read(None)
        return self._whole[start:end]
