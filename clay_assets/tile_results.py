"""What became of a tile's chips, kept between runs: `chip_embeddings/{MGRS}.parquet` in the work store.

A chip's result is found by its URL and ETag, so whatever such a file holds under the present fingerprint
need not be embedded again: a tile that was interrupted, or got new chips, goes on where it stood. Vectors
of a tile can be larger than memory (2.3 GB at level `group`), so they go through files in small pieces.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clay_assets.outcomes import Embedded, Outcome, Skipped
from clay_assets.storage import ObjectMissing, Store
from clay_assets.tables import Fingerprint, results_schema

PIECE_BYTES = 16 * 2**20
"""Vectors held before they are written as one row group."""


def results_key(tile: str) -> str:
    """Key of a tile's results in the work store."""
    return f"chip_embeddings/{tile}.parquet"


@dataclass(frozen=True)
class TileSummary:
    """A tile's results in numbers; what the Dagster UI shows, kept with the results.

    Attributes:
        embedded: Chips with a vector.
        skipped: Chips without, each by URL with its reason and its detail.
        seconds: Wall time that the last run spent on the tile.
        encoded: Chips embedded in that run; the others were at hand.
        bytes_read: Bytes of chips fetched in that run.
        bounds: West, south, east, north of the embedded chips, degrees in OGC:CRS84; empty without any.
        picture: The tile as `preview.tile_picture` drew it.
    """

    embedded: int
    skipped: list[dict[str, str]]
    seconds: float
    encoded: int
    bytes_read: int
    bounds: list[float]
    picture: str = field(default="", repr=False)

    @property
    def chips(self) -> int:
        """Chips accounted for."""
        return self.embedded + len(self.skipped)

    @property
    def chips_per_second(self) -> float:
        """Rate of the run that last embedded chips of the tile."""
        return self.encoded / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Making:
    """How a tile's vectors are made: the same for every tile of a run.

    Attributes:
        fingerprint: What decides whether earlier vectors still hold.
        shape: Of one embedding.
        model: Name of the network, e.g. `clay-v0-small`.
        untrained: Whether the checkpoint says that its weights were never trained.
        device: Where the run encodes, e.g. `cpu` or `cuda:0`.
    """

    fingerprint: Fingerprint
    shape: tuple[int, ...]
    model: str
    untrained: bool
    device: str

    @property
    def width(self) -> int:
        """Numbers in one embedding."""
        return math.prod(self.shape)

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Making":
        """What `to_json` wrote."""
        facts = json.loads(text)
        facts |= {"fingerprint": Fingerprint(**facts["fingerprint"]), "shape": tuple(facts["shape"])}
        return cls(**facts)


@dataclass(frozen=True)
class ResultsHeader:
    """What a results file says of itself, read from its footer alone.

    Attributes:
        making: How the vectors were made.
        digest: `chips_digest` of the chips accounted for.
        summary: In numbers.
    """

    making: Making
    digest: str
    summary: TileSummary

    def to_metadata(self) -> dict[str, str]:
        """As Parquet key-value metadata."""
        return {
            "clay:making": self.making.to_json(),
            "clay:chips": self.digest,
            "clay:summary": json.dumps(asdict(self.summary)),
        }


def _read_header(file: pq.ParquetFile) -> ResultsHeader:
    metadata = file.metadata.metadata or {}
    return ResultsHeader(
        making=Making.from_json(metadata[b"clay:making"].decode()),
        digest=metadata[b"clay:chips"].decode(),
        summary=TileSummary(**json.loads(metadata[b"clay:summary"])),
    )


class TileResults:
    """An open results file. Use as a context manager."""

    def __init__(self, source: BinaryIO | Path) -> None:
        self._file = pq.ParquetFile(source)
        self.header = _read_header(self._file)
        self._owned = source if not isinstance(source, Path) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._owned is not None:
            self._owned.close()

    @classmethod
    def open(cls, store: Store, tile: str) -> "TileResults | None":
        """The results of a tile, or None where there are none, or none that this version can read."""
        try:
            source = store.open(results_key(tile))
        except ObjectMissing:
            return None
        try:
            return cls(source)
        except (pa.ArrowInvalid, KeyError, TypeError, ValueError):
            # Ours alone, and rebuilt from the chips: a file of another version is as good as none.
            source.close()
            return None

    @property
    def rows(self) -> int:
        """Rows in the file, as its footer counts them."""
        return int(self._file.metadata.num_rows)

    def nulls(self, name: str) -> int:
        """Rows without a value in a column, as the footer counts them; the column must not be nested."""
        metadata = self._file.metadata
        index = metadata.schema.names.index(name)
        groups = [metadata.row_group(group).column(index) for group in range(metadata.num_row_groups)]
        return sum(group.statistics.null_count for group in groups)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns of all rows, in the file's order."""
        return self._file.read(columns=list(names))

    def sample(self, names: Sequence[str], max_bytes: int) -> Iterator[pa.Table]:
        """Some columns, a row group at a time: all of them, or some spread evenly over the file.

        Args:
            names: Columns.
            max_bytes: Of vectors, about, in all that is read; one row group is read in any case.
        """
        groups = self._file.num_row_groups
        stride = max(1, math.ceil(4 * self.header.making.width * self.rows / max_bytes))
        for group in range(0, groups, stride):
            yield self._file.read_row_group(group, columns=list(names))

    def take(self, rows: Iterable[int]) -> Iterator[pa.Table]:
        """Rows in the order asked for, in tables of a row group at most, one in memory at a time."""
        sizes = [self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups)]
        starts = np.concatenate(([0], np.cumsum(sizes))).astype(int)
        held, table = -1, None
        pending: list[int] = []
        for row in rows:
            group = int(np.searchsorted(starts, row, side="right")) - 1
            if group != held:
                if table is not None and pending:
                    yield table.take(pending)
                held, table, pending = group, self._file.read_row_group(group), []
            pending.append(row - int(starts[group]))
        if table is not None and pending:
            yield table.take(pending)


class ResultsWriter:
    """Writes a tile's results piece by piece into a local file, then stores it as one object.

    Use as a context manager: the local file is gone afterwards, whether it was stored or not.
    """

    def __init__(self, width: int) -> None:
        """Begin a file.

        Args:
            width: Numbers in one chip's embedding.
        """
        self._schema = results_schema(width)
        self._folder = tempfile.TemporaryDirectory(prefix="clay-results-")
        self.path = Path(self._folder.name) / "results.parquet"
        # Vectors look random to a dictionary, and ZSTD takes 8 % off them: not worth its time between assets.
        self._writer = pq.ParquetWriter(self.path, self._schema, compression="lz4", use_dictionary=False)
        self._rows: list[Outcome] = []
        self._piece = max(1, PIECE_BYTES // (4 * width))
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._folder.cleanup()

    def add(self, outcome: Outcome) -> None:
        """Append what became of one chip."""
        self._rows.append(outcome)
        self.count += 1
        if len(self._rows) >= self._piece:
            self._flush()

    def copy(self, tables: Iterable[pa.Table]) -> None:
        """Append rows of an earlier file."""
        self._flush()
        for table in tables:
            self._writer.write_table(table.cast(self._schema))
            self.count += table.num_rows

    def store(self, store: Store, tile: str, header: ResultsHeader) -> str:
        """Finish the file and put it in the store; returns its URL."""
        self._flush()
        self._writer.add_key_value_metadata(header.to_metadata())
        self._writer.close()
        store.put(results_key(tile), self.path)
        return store.url(results_key(tile))

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(_to_table(self._rows, self._schema))
            self._rows = []


def _to_table(outcomes: Sequence[Outcome], schema: pa.Schema) -> pa.Table:
    rows: dict[str, list[Any]] = {name: [] for name in schema.names if name != "embeddings"}
    for outcome in outcomes:
        embedded = outcome if isinstance(outcome, Embedded) else None
        skipped = outcome if isinstance(outcome, Skipped) else None
        values: Mapping[str, Any] = {
            "source_url": outcome.chip.url,
            "etag": outcome.chip.etag,
            "size": outcome.chip.size,
            "date": embedded and embedded.date,
            "geometry": embedded and embedded.footprint,
            "thumbnail": embedded and embedded.thumbnail,
            "reason": skipped and skipped.reason,
            "detail": skipped and skipped.detail,
        }
        for name, value in values.items():
            rows[name].append(value)
    width = schema.field("embeddings").type.list_size
    # Skipped chips take a row of zeros under a null: Arrow's fixed-size lists have no holes.
    vectors: NDArray[np.float32] = np.zeros((len(outcomes), width), dtype=np.float32)
    for row, outcome in zip(vectors, outcomes, strict=True):
        if isinstance(outcome, Embedded):
            row[:] = outcome.vector.reshape(-1)
    missing = pa.array([isinstance(outcome, Skipped) for outcome in outcomes])
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width, mask=missing)
    arrays = [
        column if name == "embeddings" else pa.array(rows[name], schema.field(name).type)
        for name in schema.names
    ]
    return pa.table(arrays, schema=schema)
