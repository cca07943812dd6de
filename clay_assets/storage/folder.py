"""The local folder behind a `Store`, and errors of local files.

Two rules set it apart from plain file access, and from obstore's local store: nothing is read or written
through a link that leaves the folder (chips are untrusted, and a link must not publish another file's
content), and ETags hold no inode, so that a copy that keeps its modification times is not embedded again.
"""

import errno
import logging
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from clay_assets.storage.errors import (
    AccessDenied,
    DiskFull,
    FolderMissing,
    ObjectChanged,
    ObjectMissing,
    StorageError,
    StoreDenied,
)
from clay_assets.storage.types import StoredObject

logger = logging.getLogger(__name__)

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
REFUSALS = (errno.EACCES, errno.EPERM)
LOCAL: dict[int, tuple[type[StorageError], str]] = {
    errno.ENOENT: (ObjectMissing, ", so there is no such file."),
    errno.EISDIR: (ObjectMissing, ": it is not a file."),
    errno.ENOTDIR: (ObjectMissing, ": expected a folder, got a file."),
    **dict.fromkeys(REFUSALS, (AccessDenied, ". Check the owner and mode of the file and its folders.")),
    **dict.fromkeys(
        NO_SPACE,
        (DiskFull, ". Free space on that disk, or choose another location; an earlier file is unchanged."),
    ),
    errno.EROFS: (
        StoreDenied,
        ", expected one that can be written. Mount it so, or choose another location; an earlier file is"
        " unchanged.",
    ),
}
"""Class and remedy by the error of the operating system."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` if the block ends without an exception.

    The file is `.{name}.{random}.tmp` in the same folder, which is created, so the last step is a rename
    within one filesystem. After an exception it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:  # not tempfile: its files are readable by their owner only
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def local_errors(url: str, *, of_store: bool = False) -> Iterator[None]:
    """Translate OSError of a file; `of_store`: a refusal affects the whole store, as for writes."""
    try:
        yield
    except OSError as error:
        kind, remedy = LOCAL.get(error.errno or 0, (StorageError, ""))
        if kind is AccessDenied and of_store:
            kind = StoreDenied
        raise kind(f"{url}: {error.strerror or error}{remedy}") from None


@contextmanager
def temporary_errors() -> Iterator[None]:
    """Translate OSError of temporary files (results and published files are written there first).

    Raises:
        DiskFull: If there is no space. StoreDenied: If no file can be written there.
    """
    advice = "set TMPDIR to another folder with room for a tile: 2 MB at level mean, 2.5 GB at level group."
    try:
        yield
    except OSError as error:
        place = "the temporary folder"
        with suppress(FileNotFoundError):  # no folder can be used
            place += f" {tempfile.gettempdir()}"
        if error.errno in NO_SPACE:
            reason = os.strerror(error.errno)  # pyarrow's errors have a longer one
            raise DiskFull(f"{place}: {reason}. Free space, or {advice}") from error
        if error.errno in (*REFUSALS, errno.EROFS, errno.ENOENT):
            raise StoreDenied(
                f"{place} cannot be written ({error.strerror}). Check its owner and mode, or {advice}"
            ) from error
        raise


class Folder:
    """The files below one folder; keys are relative to it."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def folders(self) -> list[str]:
        """Return the names of the folders directly below the root."""
        return [entry.name for entry in self._entries("") if entry.is_dir()]

    def list(self, prefix: str) -> list[StoredObject]:
        """Return every file whose key begins with `prefix`."""
        folder, slash, _ = prefix.rpartition("/")
        is_link = os.path.realpath(self._root / folder) != str(self._root.resolve() / folder)
        if folder and (is_link or "/." in f"/{folder}"):
            return []
        with local_errors(str(self._root)):
            return [*self._files(folder + slash, prefix)]

    def stat(self, key: str) -> StoredObject:
        """Return size and ETag of a file."""
        path = self._path(key)
        with local_errors(str(path)):
            status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ObjectMissing(f"{path} is not a file.")
        return _stored(str(path), status)

    def read(self, key: str, expected: StoredObject | None) -> bytes:
        """Return a file's content; raise if the file changes while it is read."""
        with self.open(key, expected) as file, local_errors(file.name):
            opened = _stored(file.name, os.fstat(file.fileno()))
            data = file.read(opened.size + 1)  # one more than expected shows growth, without following it
            closed = _stored(file.name, os.fstat(file.fileno()))
        if closed != opened or len(data) != opened.size:
            raise ObjectChanged(f"{opened.url} changed while it was read. List it again, and run again.")
        return data

    def copy(self, key: str, expected: StoredObject | None, file: BinaryIO) -> None:
        """Copy a file's content into an open file."""
        with self.open(key, expected) as source:
            shutil.copyfileobj(source, file, 1 << 20)

    def open(self, key: str, expected: StoredObject | None) -> BinaryIO:
        """Open a file for reading."""
        url = self.stat(key).url  # refuses files that open() would wait for, such as named pipes
        with local_errors(url):
            file = Path(url).open("rb")  # noqa: SIM115 - the caller closes it
        found = _stored(url, os.fstat(file.fileno()))
        if expected is not None and found.etag != expected.etag:
            file.close()
            raise ObjectChanged(
                f"{url} changed since it was listed: {expected.size} bytes then, {found.size} bytes now. "
                "List it again, and run again."
            )
        return file

    def write(self, key: str, source: BinaryIO) -> None:
        """Write a file and create its folders."""
        path = self._path(key)
        with local_errors(str(path), of_store=True), replacing(path) as file:
            shutil.copyfileobj(source, file, 1 << 20)

    def delete(self, key: str) -> None:
        """Remove a file if it exists."""
        path = self._path(key)
        with local_errors(str(path)):
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        """Return the path of a key; refuse one that leaves the folder."""
        path = self._root / key
        if not self._holds(path):
            raise AccessDenied(
                f"{path} is or is below a link that leaves {self._root}. Store the file itself there."
            )
        return path

    def _holds(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self._root.resolve())

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """Yield the entries of a folder, without hidden names, links to folders and links out of the root."""
        below = ""
        try:
            os.scandir(self._root).close()  # distinguishes a missing or denied root from a folder in it
            below = folder
            with os.scandir(self._root / folder) as scan:
                entries = [entry for entry in scan if not entry.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError) as error:
            if below:
                return  # it does not exist, or was removed since its name was read
            raise FolderMissing(
                f"The folder {self._root} is missing ({error.strerror}). Create it, or correct the address."
            ) from None
        except PermissionError as error:
            raise (AccessDenied if below else StoreDenied)(
                f"{self._root}/{below}: {error.strerror}. Check the owner and mode of the folder."
            ) from None
        for entry in entries:
            if entry.is_symlink() and (entry.is_dir() or not self._holds(Path(entry.path))):
                logger.warning("%s is ignored: a link to a folder, or out of %s.", entry.path, self._root)
            else:
                yield entry

    def _files(self, folder: str, prefix: str) -> Iterator[StoredObject]:
        """Yield the files in and below `folder` ("", or ends with a slash) whose key begins with `prefix`."""
        for entry in self._entries(folder):
            key = folder + entry.name
            if key.startswith(prefix) and entry.is_dir():
                yield from self._files(f"{key}/", prefix)
            elif key.startswith(prefix) and entry.is_file():
                with suppress(FileNotFoundError):  # removed since the folder was read
                    yield _stored(entry.path, entry.stat())


def _stored(url: str, status: os.stat_result) -> StoredObject:
    return StoredObject(url, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}")
