"""A local folder as a place of objects.

Belongs here: files. Two rules set it apart from plain file access: nothing is read or written through a link
that leaves the folder (chips are untrusted, and a link must not make us publish another file's content), and
a file appears under its name only when it is whole.
"""

import errno
import logging
import os
import secrets
import shutil
import stat
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


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends well, and vanishes when it does not.

    It lies beside `path`, as `.{name}.{random}.tmp`, so that the last step is a rename within one filesystem.
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


NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def named_errors(url: str, *, of_store: bool = False) -> Iterator[None]:
    """Turns the operating system's errors into this package's.

    Args:
        url: Of what is read or written.
        of_store: Whether a refusal is of the whole store: something was to be written.
    """
    try:
        yield
    except FileNotFoundError:
        raise ObjectMissing(f"{url} does not exist.") from None
    except (IsADirectoryError, NotADirectoryError):
        raise ObjectMissing(
            f"{url} is not a file: got a folder there, or a file where a folder should be."
        ) from None
    except PermissionError as error:
        raise (StoreDenied if of_store else AccessDenied)(
            f"{url}: {error.strerror}. Check the owner and mode of the file and its folders."
        ) from None
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull(
                f"{url}: {error.strerror}. Free space on that disk, or name another place; an earlier file is"
                " as it was."
            ) from None
        if error.errno == errno.EROFS:
            raise StoreDenied(
                f"{url}: {error.strerror}, expected one that can be written. Mount it so, or name another"
                " place; an earlier file is as it was."
            ) from None
        raise StorageError(f"{url}: {error.strerror or error}.") from error


def _stored(url: str, status: os.stat_result) -> StoredObject:
    return StoredObject(url, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}")


class Folder:
    """The files below one folder; the methods are those of `Store`, with keys relative to the root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folders(self) -> list[str]:
        """The names of the folders directly below the root."""
        with named_errors(str(self.root)):
            return [entry.name for entry in self._entries("") if entry.is_dir()]

    def list(self, prefix: str) -> list[StoredObject]:
        """Every file whose key begins with `prefix`."""
        found = []
        with named_errors(str(self.root)):
            for key, entry in self._files("", prefix):
                with suppress(FileNotFoundError):  # gone since the folder was read: as if never there
                    found.append(_stored(str(self.root / key), entry.stat()))
        return found

    def stat(self, key: str) -> StoredObject:
        """Size and ETag of a file."""
        path = self._path(key)
        with named_errors(str(path)):
            status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ObjectMissing(f"{path} is not a file.")
        return _stored(str(path), status)

    def read(self, key: str, expected: StoredObject | None) -> bytes:
        """A file's content; `ObjectChanged` where it differs from `expected` or changes meanwhile."""
        with self.open(key, expected) as file, named_errors(file.name):
            opened = _stored(file.name, os.fstat(file.fileno()))
            data = file.read(opened.size + 1)  # one more than expected shows growth, without following it
            closed = _stored(file.name, os.fstat(file.fileno()))
        if closed != opened or len(data) != opened.size:
            raise ObjectChanged(
                f"{opened.url} was written to while it was read. List it again, and run again."
            )
        return data

    def fetch_to(self, key: str, expected: StoredObject | None, path: Path) -> StoredObject:
        """Copies a file."""
        with self.open(key, expected) as source, named_errors(str(path)), replacing(path) as file:
            shutil.copyfileobj(source, file, 1 << 20)
            return _stored(source.name, os.fstat(source.fileno()))

    def open(self, key: str, expected: StoredObject | None) -> BinaryIO:
        """Opens a file for reading."""
        url = self.stat(key).url  # refuses what open() would wait for, such as a named pipe
        with named_errors(url):
            file = Path(url).open("rb")  # noqa: SIM115 - the caller's to close
        found = _stored(url, os.fstat(file.fileno()))
        if expected is not None and (found.etag, found.size) != (expected.etag, expected.size):
            file.close()
            raise ObjectChanged(
                f"{url} changed since it was listed: {expected.size} bytes then, {found.size} bytes now. "
                "List it again, and run again."
            )
        return file

    def write(self, key: str, data: bytes) -> None:
        """Writes a file, creating its folders."""
        path = self._path(key)
        with named_errors(str(path), of_store=True), replacing(path) as file:
            file.write(data)

    def put(self, key: str, path: Path) -> None:
        """Copies a local file to here."""
        target = self._path(key)
        with path.open("rb") as source, named_errors(str(target), of_store=True), replacing(target) as file:
            shutil.copyfileobj(source, file, 1 << 20)

    def delete(self, key: str) -> None:
        """Removes a file, if it is there."""
        path = self._path(key)
        with named_errors(str(path)):
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        path = self.root / key
        if not self._holds(path):
            raise AccessDenied(
                f"{path} is or lies behind a link that leaves {self.root}. Put the file itself there."
            )
        return path

    def _holds(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root.resolve())

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """What lies directly in a folder, less hidden names, links to folders, links out of the root."""
        try:
            scan = os.scandir(self.root / folder)
        except (FileNotFoundError, NotADirectoryError) as error:
            if folder:
                return  # removed since its name was read
            raise FolderMissing(
                f"The folder {self.root} is not there ({error.strerror}). Create it, or correct the address."
            ) from None
        except PermissionError as error:
            raise (AccessDenied if folder else StoreDenied)(
                f"{self.root}/{folder}: {error.strerror}. Check the owner and mode of the folder."
            ) from None
        with scan:
            for entry in scan:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink() and (entry.is_dir() or not self._holds(Path(entry.path))):
                    logger.warning("%s left out: a link to a folder, or out of %s.", entry.path, self.root)
                    continue
                yield entry

    def _files(self, folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Keys and entries of the files below `folder`, entering only folders that can hold `prefix`."""
        name, inside, _ = prefix[len(folder) :].partition("/")
        only = self.root / folder / name
        if inside and name and not name.startswith(".") and os.path.isdir(only) and not only.is_symlink():  # noqa: PTH112 - Path.is_dir() may raise
            # Its neighbours, 10,000 of a tile's, need not be looked through. Anything else is told below.
            yield from self._files(f"{folder}{name}/", prefix)
            return
        for entry in self._entries(folder):
            key = folder + entry.name
            if entry.is_dir():
                if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                    yield from self._files(f"{key}/", prefix)
            elif entry.is_file() and key.startswith(prefix):
                yield key, entry
