"""What a full or unusable temporary folder is called: results and published files pass through it.

Not here: local stores (`folder`).
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from clay_assets.storage.errors import DiskFull, StoreDenied
from clay_assets.storage.folder import NO_SPACE

UNUSABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)


@contextmanager
def temporary_errors() -> Iterator[None]:
    """Turns errors of writing temporary files into this package's, with what to do.

    Raises:
        DiskFull: If there is no space. StoreDenied: If no file can be written there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull(f"{_place()}: {os.strerror(error.errno)}. Free space, or {_ADVICE}") from error
        if error.errno in UNUSABLE:  # the last: there is no folder that can be used at all
            raise StoreDenied(
                f"{_place()} cannot be written ({error.strerror}). Check its owner and mode, or {_ADVICE}"
            ) from error
        raise


_ADVICE = "let TMPDIR name another folder, with room for a tile: 2 MB at level mean, 2.5 GB at level group."


def _place() -> str:
    try:
        return f"the temporary folder {tempfile.gettempdir()}"
    except FileNotFoundError as error:
        return f"the temporary folder ({error.strerror})"
