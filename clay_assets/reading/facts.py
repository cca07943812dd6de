"""Reads what a file of embeddings declares in its footer, and refuses files that do not belong together.

Width, model and level come from here, never from constants: files of several networks exist.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clay_assets.publishing.schema import MEAN, PREFIX, Bounds, parse_published_name
from clay_assets.reading.files import SourceFile

SAMENESS = ("model", "level", "checkpoint_sha256")
"""Provenance that files read together must share: vectors of different networks can't be compared."""


class MixedEmbeddings(ValueError):
    """Files of different models or levels, or several versions of a tile, were to be read as one."""


@dataclass(frozen=True)
class Quantization:
    """How stored integers become numbers: `stored * scale + offset`, (D,) float32 each."""

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Facts:
    """What a footer declares.

    Attributes:
        provenance: `clay:` keys without the prefix; empty for files of other software.
        shape: Shape of one embedding; empty if the footer does not define it, as for lists.
        rows: Number of rows in the file.
        groups: Rows in each row group.
        bounds: Bounds of all rows, degrees in OGC:CRS84; None if unknown.
        mean: (D,) of the file's vectors, over places too; None if unknown.
        quantization: How the numbers were quantized; None if they were not.
    """

    provenance: dict[str, str]
    shape: tuple[int, ...]
    rows: int
    groups: tuple[int, ...]
    bounds: Bounds | None
    mean: NDArray[np.float64] | None = field(default=None, repr=False)
    quantization: Quantization | None = field(default=None, repr=False)

    @property
    def width(self) -> int:
        """Numbers of one embedding; 1 if the footer does not define it."""
        return math.prod(self.shape)

    @property
    def kind(self) -> tuple[str, ...]:
        """Equal for files that can be read as one."""
        return (*(self.provenance.get(name, "unknown") for name in SAMENESS), str(self.shape or "any"))


def facts_of(parquet: pq.ParquetFile) -> Facts:
    """Parse a footer.

    Raises:
        ValueError: The file has no column `embeddings`, or its `clay:` keys can't be understood.
    """
    metadata, schema = parquet.metadata, parquet.schema_arrow
    pairs = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()}
    provenance = {key.removeprefix(PREFIX): value for key, value in pairs.items() if key.startswith(PREFIX)}
    if "embeddings" not in schema.names:
        raise ValueError(f"got the columns {schema.names}; expected one named embeddings")
    mean, quantization = (json.loads(provenance.pop(name, "null")) for name in (MEAN, "quantization"))
    bounds = json.loads(pairs.get("geo", "{}")).get("columns", {}).get("geometry", {}).get("bbox")
    if quantization is not None:
        scale, offset = (np.array(quantization[name], dtype=np.float32) for name in ("scale", "offset"))
    return Facts(
        provenance=provenance,
        shape=_shape(schema.field("embeddings").type),
        rows=metadata.num_rows,
        groups=tuple(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)),
        bounds=tuple(bounds) if bounds and len(bounds) == 4 else None,
        mean=None if mean is None else np.array(mean),
        quantization=None if quantization is None else Quantization(scale, offset),
    )


def _shape(kind: pa.DataType) -> tuple[int, ...]:
    if isinstance(kind, pa.FixedShapeTensorType):
        return tuple(kind.shape)
    return (kind.list_size,) if pa.types.is_fixed_size_list(kind) else ()


def refuse_mixtures(files: Sequence[SourceFile], facts: Iterable[Facts]) -> None:
    """Refuse files of different models, levels or checkpoints, or of several versions of one tile.

    Raises:
        MixedEmbeddings: Naming each kind with one of its files.
    """
    kinds: dict[tuple[str, ...], list[str]] = {}
    for file, fact in zip(files, facts, strict=True):
        kinds.setdefault(fact.kind, []).append(file.name)
    if len(kinds) > 1:
        named = [
            f"{len(names)} such as {names[0]} with "
            + ", ".join(f"{name} {value}" for name, value in zip((*SAMENESS, "shape"), kind, strict=True))
            for kind, names in kinds.items()
        ]
        raise MixedEmbeddings(
            f"got files that can't be read as one: {'; '.join(named)}. Expected one model, level and"
            f" checkpoint:"
            " name the files to read, or their version"
        )
    refuse_versions([file.name for file in files])


def refuse_versions(names: Iterable[str]) -> None:
    """Refuse several versions of one tile: its rows would occur twice.

    Raises:
        MixedEmbeddings: Naming the first such tile.
    """
    seen: dict[str, int] = {}
    for name in names:
        parsed = parse_published_name(name)
        if parsed is not None and seen.setdefault(parsed.tile, parsed.version) != parsed.version:
            raise MixedEmbeddings(
                f"got versions {seen[parsed.tile]} and {parsed.version} of tile {parsed.tile}; expected one."
                " Choose one with version=…"
            )
