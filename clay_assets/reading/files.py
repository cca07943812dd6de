"""Resolves an address, or a list of them, to the Parquet files under it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from clay_assets.storage import S3Options, Store, StoredObject

SUFFIXES = (".gpq", ".parquet", ".geoparquet")

Where = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A folder, a file, or a list of either; local paths, `s3://bucket/prefix`, any address that `Store`
opens."""


class NothingToRead(LookupError):
    """There is no Parquet file at an address."""


@dataclass(frozen=True)
class SourceFile:
    """A file of embeddings: its store, and the object as listed there."""

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
    """List the Parquet files at an address and in folders below it, sorted by URL; each once.

    Args:
        where: A name that ends in `.gpq`, `.parquet` or `.geoparquet` is a file, any other a folder.
        options: How to reach S3; None: the AWS SDK's own variables and files.

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
