"""An address, or a list of them, becomes the Parquet files under it.

Belongs here: telling a file from a folder, and listing. Which of the files matter: `selection.py`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from clay_assets.storage import S3Options, Store, StoredObject

SUFFIXES = (".gpq", ".parquet", ".geoparquet")

Where = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A folder, a file, or a list of either; local paths, `s3://bucket/prefix`, whatever `Store` opens."""


class NothingToRead(LookupError):
    """There is no Parquet file at an address."""


@dataclass(frozen=True)
class SourceFile:
    """One file of embeddings.

    Attributes:
        store: That holds it.
        object: As the store listed it.
    """

    store: Store
    object: StoredObject

    @property
    def url(self) -> str:
        """Full URL, or absolute path."""
        return self.object.url

    @property
    def name(self) -> str:
        """File name without its folders."""
        return PurePosixPath(self.object.url).name


def find_files(where: Where, options: S3Options | None = None) -> list[SourceFile]:
    """The Parquet files at an address, folders below it included, sorted by URL; each once.

    Args:
        where: A name that ends in `.gpq` or `.parquet` is a file, any other a folder.
        options: How to reach S3; the AWS SDK's own variables and files where None.

    Raises:
        NothingToRead: An address has no such file.
        StorageError: A store refuses.
    """
    addresses = [where] if isinstance(where, str | os.PathLike) else list(where)
    found = {file.url: file for address in addresses for file in _at(os.fspath(address), options)}
    if not found:
        raise NothingToRead("got an empty list of files to read; expected at least one file or folder")
    return [found[url] for url in sorted(found)]


def _at(address: str, options: S3Options | None) -> Iterator[SourceFile]:
    if address.endswith(SUFFIXES):
        parent, _, name = address.rpartition("/")
        store = Store(parent or ("/" if address.startswith("/") else "."), options)
        yield SourceFile(store, store.stat(name))
        return
    store = Store(address, options)
    files = [SourceFile(store, found) for found in store.list() if found.url.endswith(SUFFIXES)]
    if not files:
        raise NothingToRead(
            f"{store.uri} has no file that ends in {', '.join(SUFFIXES)}; expected published embeddings"
            " there. Publish a tile first, or correct the address"
        )
    yield from files


def urls(files: Iterable[SourceFile]) -> list[str]:
    """URLs of files, for messages."""
    return [file.url for file in files]
