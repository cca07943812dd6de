"""What a file of embeddings says of itself, from its footer alone; and files that do not belong together.

Width, model and level are taken from here, never from constants: files of several networks exist.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clay_assets.publishing import parse_published_name
from clay_assets.publishing.schema import MEAN, PREFIX, Bounds
from clay_assets.reading.files import SourceFile

SAMENESS = ("model", "level", "checkpoint_sha256")
"""Provenance that files read together must share: numbers of different networks can't be compared."""


class MixedEmbeddings(ValueError):
    """Files of different models or levels, or several versions of a tile, were to be read as one."""


@dataclass(frozen=True)
class Quantization:
    """How stored integers become numbers: `stored * scale + offset`, dimension by dimension.

    Attributes:
        scale: (D,) float32.
        offset: (D,) float32.
    """

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Facts:
    """What a footer says.

    Attributes:
        provenance: `clay:` keys by bare names; empty for files of others.
        shape: Of one embedding; empty where the footer does not fix it, as with lists of any length.
        rows: In the file.
        groups: Rows in each row group.
        bounds: Of all rows, degrees in OGC:CRS84; None where not said.
        mean: (D,) of the file's vectors, over places too; None where not said.
        quantization: None where the numbers are stored as they are.
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
        """Numbers of one embedding; 1 where the footer does not say."""
        return math.prod(self.shape)

    @property
    def kind(self) -> tuple[str, ...]:
        """What two files must have in common to be read as one."""
        return (*(self.provenance.get(name, "not said") for name in SAMENESS), str(self.shape or "any"))


def facts_of(parquet: pq.ParquetFile) -> Facts:
    """Take a footer apart.

    Raises:
        ValueError: The file has no column `embeddings`, or its `clay:` keys can't be understood.
    """
    metadata, schema = parquet.metadata, parquet.schema_arrow
    pairs = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()}
    said = {key.removeprefix(PREFIX): value for key, value in pairs.items() if key.startswith(PREFIX)}
    if "embeddings" not in schema.names:
        raise ValueError(f"got the columns {schema.names}; expected one named embeddings")
    mean, quantization = said.pop(MEAN, None), said.pop("quantization", None)
    geometry = json.loads(pairs.get("geo", "{}")).get("columns", {}).get("geometry", {})
    bounds = geometry.get("bbox")
    return Facts(
        provenance=said,
        shape=_shape(schema.field("embeddings").type),
        rows=metadata.num_rows,
        groups=tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)),
        bounds=tuple(bounds) if bounds and len(bounds) == 4 else None,
        mean=None if mean is None else np.array(json.loads(mean)),
        quantization=None if quantization is None else _quantization(json.loads(quantization)),
    )


def _shape(kind: pa.DataType) -> tuple[int, ...]:
    if isinstance(kind, pa.FixedShapeTensorType):
        return tuple(kind.shape)
    return (kind.list_size,) if pa.types.is_fixed_size_list(kind) else ()


def _quantization(said: dict[str, list[float]]) -> Quantization:
    return Quantization(*(np.array(said[name], dtype=np.float32) for name in ("scale", "offset")))


def refuse_mixtures(files: Sequence[SourceFile], facts: Iterable[Facts]) -> None:
    """Refuse files of different models, levels or checkpoints, or of several versions of one tile.

    Raises:
        MixedEmbeddings: Naming each kind with one of its files.
    """
    kinds: dict[tuple[str, ...], list[str]] = {}
    for file, fact in zip(files, facts, strict=True):
        kinds.setdefault(fact.kind, []).append(file.name)
    if len(kinds) > 1:
        told = "; ".join(
            f"{len(names)} such as {names[0]} with {_as_words(kind)}" for kind, names in kinds.items()
        )
        raise MixedEmbeddings(
            f"got files that can't be read as one: {told}. Expected one model, level and checkpoint:"
            " name the files to read, or their version"
        )
    refuse_versions([file.name for file in files])


def _as_words(kind: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip((*SAMENESS, "shape"), kind, strict=True))


def refuse_versions(names: Iterable[str]) -> None:
    """Refuse several versions of one tile: its rows would be there twice.

    Raises:
        MixedEmbeddings: Naming the first such tile.
    """
    seen: dict[str, int] = {}
    for name in names:
        parsed = parse_published_name(name)
        if parsed is not None and seen.setdefault(parsed.tile, parsed.version) != parsed.version:
            raise MixedEmbeddings(
                f"got versions {seen[parsed.tile]} and {parsed.version} of tile {parsed.tile}; expected one."
                " Say which, with version=…"
            )
