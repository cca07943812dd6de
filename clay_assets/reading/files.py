"""Resolves an address to the Parquet files under it, and reads what their footers declare.

Width, model and level come from the footers, never from constants: files of several networks exist.
"""

import itertools
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clay_assets.publishing.schema import MEAN, PREFIX, Bounds, parse_published_name
from clay_assets.storage import S3Options, Store, StoredObject

SUFFIXES = (".gpq", ".parquet", ".geoparquet")

Where = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A folder, a file, or a list of either; any address that `Store` opens."""


class NothingToRead(LookupError):
    """There is no Parquet file at an address."""


class MixedEmbeddings(ValueError):
    """Files of different models or levels, or several versions of a tile, were to be read as one."""


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
        return PurePosixPath(self.url).name


class Quantization(NamedTuple):
    """How stored integers become numbers: `stored * scale + offset`, for each dimension."""

    scale: NDArray[np.float32]  # (D,)
    offset: NDArray[np.float32]  # (D,)

    def restore(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return the numbers of (N, D) stored integers, within half a step of the original ones."""
        return stored.astype(np.float32) * self.scale + self.offset

    def as_lists(self) -> dict[str, list[float]]:
        """Return scale and offset as the shortest decimals that restore their float32."""
        return {name: [float(str(value)) for value in values] for name, values in self._asdict().items()}


@dataclass(frozen=True, eq=False)
class Facts:
    """A file, and what its footer declares."""

    file: SourceFile
    provenance: dict[str, str]  # `clay:` keys without the prefix; empty for files of other software
    shape: tuple[int, ...]  # of one embedding; empty if the footer does not define it, as for lists
    rows: int
    groups: Sequence[int]  # numbers of the row groups to read: all of them, or those of one thread
    bounds: Bounds | None  # of all rows; None if unknown
    mean: NDArray[np.float64] | None  # (D,) of the file's vectors, over places too; None if unknown
    quantization: Quantization | None  # None if the numbers were not quantized

    @property
    def width(self) -> int:
        """Numbers of one embedding; 1 if the footer does not define it."""
        return math.prod(self.shape)


def find_files(where: Where, options: S3Options | None = None) -> list[SourceFile]:
    """List the Parquet files at an address and in folders below it, sorted by URL; each once.

    A name that ends in one of `SUFFIXES` is a file, any other a folder.
    """
    found: dict[str, SourceFile] = {}
    for one in [where] if isinstance(where, str | os.PathLike) else where:
        address = os.fspath(one)
        if address.endswith(SUFFIXES):
            folder, name = os.path.split(address)
            store = Store(folder or ".", options)
            files = [store.stat(name)]
        else:
            store = Store(address, options)
            files = [file for file in store.list() if file.url.endswith(SUFFIXES)]
        if not files:
            raise NothingToRead(
                f"{store.uri} has no file that ends in {', '.join(SUFFIXES)}; expected published embeddings"
                " there. Publish a tile first, or correct the address"
            )
        found |= {file.url: SourceFile(store, file) for file in files}
    if not found:
        raise NothingToRead("got an empty list of files to read; expected at least one file or folder")
    return [found[url] for url in sorted(found)]


def facts_of(file: SourceFile, parquet: pq.ParquetFile) -> Facts:
    """Parse a file's footer; ValueError if it has no embeddings, or `clay:` keys that can't be understood."""
    try:
        metadata, schema = parquet.metadata, parquet.schema_arrow
        pairs = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()}
        provenance = {key.removeprefix(PREFIX): text for key, text in pairs.items() if key.startswith(PREFIX)}
        if "embeddings" not in schema.names:
            raise ValueError(f"got the columns {schema.names}; expected one named embeddings")
        mean, quantization = (json.loads(provenance.pop(name, "null")) for name in (MEAN, "quantization"))
        if quantization is not None:
            scale, offset = (np.array(quantization[name], np.float32) for name in Quantization._fields)
            quantization = Quantization(scale, offset)
        bounds = json.loads(pairs.get("geo", "{}")).get("columns", {}).get("geometry", {}).get("bbox")
        return Facts(
            file=file,
            provenance=provenance,
            shape=_shape(schema.field("embeddings").type),
            rows=metadata.num_rows,
            groups=range(metadata.num_row_groups),
            bounds=tuple(bounds) if bounds and len(bounds) == 4 else None,
            mean=None if mean is None else np.array(mean),
            quantization=quantization,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file.url} is not a file of embeddings: {error}") from error


def _shape(kind: pa.DataType) -> tuple[int, ...]:
    if isinstance(kind, pa.FixedShapeTensorType):
        return tuple(kind.shape)
    return (kind.list_size,) if pa.types.is_fixed_size_list(kind) else ()


def refuse_mixtures(files: Iterable[Facts]) -> None:
    """Refuse several versions of one tile, and files whose vectors can't be compared."""
    kinds: dict[str, list[str]] = {}
    for facts in files:
        shared = ("model", "level", "checkpoint_sha256")
        told = [f"{name} {facts.provenance.get(name, 'unknown')}" for name in shared]
        kind = ", ".join([*told, f"shape {facts.shape or 'any'}"])
        kinds.setdefault(kind, []).append(facts.file.name)
    if len(kinds) > 1:
        named = [f"{len(names)} such as {names[0]} with {kind}" for kind, names in kinds.items()]
        raise MixedEmbeddings(
            f"got files that can't be read as one: {'; '.join(named)}. Expected one model, level and"
            " checkpoint: name the files to read, or their version"
        )
    versions: dict[str, int] = {}
    for name in itertools.chain(*kinds.values()):
        parsed = parse_published_name(name)
        if parsed is not None and versions.setdefault(parsed.tile, parsed.version) != parsed.version:
            raise MixedEmbeddings(
                f"got versions {versions[parsed.tile]} and {parsed.version} of tile {parsed.tile}; expected"
                " one. Choose one with version=…"
            )
