"""Tiles in every state without embedding: chips of a few bytes, results with invented vectors.

For tests of states, automation, checks and the command line. The package's writers write the files into real
stores.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
import pyarrow.parquet as pq
import pyproj
import shapely
from numpy.typing import NDArray

from clay_assets.chips import MAX_NODATA, READER_VERSION, ChipName
from clay_assets.embedding.checkpoint_cache import CheckpointFacts, publish_facts
from clay_assets.publishing.publish import publish_tile
from clay_assets.results import Provenance, ResultsHeader, ResultsWriter, Target, TileSummary, results_key
from clay_assets.results.header import Fingerprint, chips_digest
from clay_assets.results.outcomes import THUMBNAIL_SIZE, Embedded, Outcome, Skipped
from clay_assets.state import TileStores
from clay_assets.storage import Store, StoredObject
from clay_assets.tiles.inventory import list_chips, write_inventory

TILES = ("27WXM", "27WXN", "27WXP", "27WXQ", "28WDS", "28WDT")
"""Adjacent tiles in the order of a manifest."""

SQUARES = {"27WXM": (600_000, 7_100_000), "27WXN": (600_000, 7_200_000), "27WXP": (600_000, 7_300_000)}
"""South-west corner of a tile's 100 km square, metres of UTM zone 27."""

DATE = "2020-06-15"

FINGERPRINT = Fingerprint(
    model="clay-v0-small", checkpoint_sha256="c" * 64, level="mean", precision="fp32", preprocessing=1
)

Vectors = NDArray[np.float32]


def target_of(fingerprint: Fingerprint = FINGERPRINT, *, max_nodata: float = MAX_NODATA) -> Target:
    """The target of settings that give exactly these vectors."""
    return Target((fingerprint,), fingerprint, max_nodata=max_nodata)


def put_chips(stores: TileStores, tile: str, numbers: Sequence[int], content: bytes = b"a chip") -> None:
    """Store objects with the names of a tile's chips; their content is not a chip."""
    for number in numbers:
        name = f"claytile_{tile}_{DATE.replace('-', '')}_v02_{number:04}.tif"
        stores.chips.write(f"{tile}/{DATE}/{name}", content)


def clay_like(count: int, seed: int = 0, dim: int = 768) -> Vectors:
    """Vectors distributed like those of trained weights: norms about 2, median cosine about 0.97."""
    random = np.random.default_rng(seed)
    common, own = random.standard_normal(dim), random.standard_normal((count, dim))
    vectors = 2 * (common + 0.17 * own) / np.sqrt(dim)
    return vectors.astype(np.float32)


def footprint(tile: str, number: int) -> bytes:
    """WKB of a chip inside its tile: its corners, reprojected by pyproj."""
    west, south = SQUARES.get(tile, SQUARES["27WXN"])
    to_degrees = pyproj.Transformer.from_crs("EPSG:32627", "OGC:CRS84", always_xy=True)
    west, south = west + 5_120 * (number % 19), south + 5_120 * (number // 19 % 19)
    corners = [(west + 5120, south), (west + 5120, south + 5120), (west, south + 5120), (west, south)]
    wkb: bytes = shapely.to_wkb(shapely.Polygon([to_degrees.transform(*corner) for corner in corners]))
    return wkb


@dataclass(frozen=True)
class MadeUp:
    """Invented results of a tile.

    Attributes:
        fingerprint: Fingerprint of the vectors.
        skipped: Number of chips skipped, from the first on.
        vectors: Returns the given number of vectors.
        alter: Changes the outcomes before they are stored.
        seconds: Recorded duration.
        place: Returns a chip's footprint.
        remaining: Recorded number of chips not processed.
        reader: Recorded version of the chip reader.
        max_nodata: Recorded limit of no-data.
    """

    fingerprint: Fingerprint = FINGERPRINT
    skipped: int = 0
    vectors: Callable[[int], Vectors] = clay_like
    alter: Callable[[list[Outcome]], list[Outcome]] = lambda outcomes: outcomes
    seconds: float = 2.0
    place: Callable[[str, int], bytes] = footprint
    remaining: int = 0
    reader: int = READER_VERSION
    max_nodata: float = MAX_NODATA

    def store(self, stores: TileStores, tile: str) -> None:
        """List the tile's chips and store results of them."""
        chips = list_chips(stores.chips, tile).chips
        write_inventory(stores.work, tile, chips)
        outcomes = self.alter(self._outcomes(tile, chips))
        embedded = [outcome for outcome in outcomes if isinstance(outcome, Embedded)]
        skips = [outcome for outcome in outcomes if isinstance(outcome, Skipped)]
        shape = embedded[0].vectors.shape[1:] if embedded else (768,)
        provenance = Provenance(
            self.fingerprint,
            shape,
            untrained=False,
            device="cpu",
            software="clay-assets/0 torch/0",
            reader=self.reader,
            max_nodata=self.max_nodata,
        )
        summary = TileSummary(
            embedded=len(embedded),
            windows=sum(len(outcome.footprints) for outcome in embedded),
            skipped=[{"source_url": s.chip.url, "reason": s.reason, "detail": s.detail} for s in skips],
            seconds=self.seconds,
            encoded=len(embedded),
            bytes_read=sum(chip.size for chip in chips),
            bounds=_bounds([wkb for outcome in embedded for wkb in outcome.footprints]),
        )
        with ResultsWriter(provenance.width) as writer:
            for outcome in outcomes:
                writer.add(outcome)
            digest = chips_digest(tile, chips)
            writer.store(stores.work, tile, ResultsHeader(provenance, digest, summary, self.remaining))

    def _outcomes(self, tile: str, chips: Sequence[StoredObject]) -> list[Outcome]:
        vectors = self.vectors(len(chips))
        outcomes: list[Outcome] = []
        for index, chip in enumerate(chips):
            if index < self.skipped:
                outcomes.append(Skipped(chip, "corrupt", "the file ends early"))
                continue
            name = ChipName.parse(PurePosixPath(chip.url).name)
            wkb, thumbnail = self.place(tile, name.number), bytes(3 * THUMBNAIL_SIZE**2)
            vector = vectors[index : index + 1]
            outcomes.append(Embedded(chip, name.date, [wkb], vector, [thumbnail]))
        return outcomes


def _bounds(footprints: list[bytes]) -> list[float]:
    return [float(edge) for edge in shapely.total_bounds(shapely.from_wkb(footprints))] if footprints else []


def finish(
    stores: TileStores, tile: str, made_up: MadeUp | None = None, *, chips: int = 3, version: int = 1
) -> None:
    """Store chips and results of them, and publish the tile."""
    made_up = made_up or MadeUp()
    put_chips(stores, tile, range(1, chips + 1))
    made_up.store(stores, tile)
    publish_tile(stores.work, stores.output, tile, version=version, target=target_of(made_up.fingerprint))


def damage_pages(work: Store, tile: str, column: str, fingerprint: Fingerprint = FINGERPRINT) -> None:
    """Overwrite the first page of a column of a tile's results; the footer stays intact."""
    key = results_key(tile, fingerprint)
    data = bytearray(work.read(key))
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    for chunk in (group.column(index) for index in range(group.num_columns)):
        if chunk.path_in_schema.split(".")[0] == column:
            data[chunk.data_page_offset : chunk.data_page_offset + 20] = b"\xff" * 20
    work.write(key, bytes(data))


def know_checkpoint(work: Store, checkpoint: Store, fingerprint: Fingerprint = FINGERPRINT) -> None:
    """Record any file in the work store as the checkpoint of a fingerprint, as a run does."""
    found = checkpoint.stat()
    facts = CheckpointFacts(
        found.url, found.etag, found.size, fingerprint.checkpoint_sha256, fingerprint.model, untrained=False
    )
    publish_facts(work, facts)


def embedded_at_level(level: str) -> Fingerprint:
    """`FINGERPRINT` at another level."""
    return replace(FINGERPRINT, level=level)
