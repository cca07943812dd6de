"""A tile to embed: real chips in a real folder, a work store, and a network that costs nothing."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import PrivateAttr

from clay_assets.dagster.encoder import ClayEncoder
from clay_assets.dagster.object_store import ObjectStore
from clay_assets.embedding.plan import TilePlan, plan_tiles
from clay_assets.embedding.tile import EmbeddingRun, embed_tile, embedding_run
from clay_assets.results import ResultsHeader, TileResults
from clay_assets.results.fingerprint import Fingerprint
from clay_assets.storage import Store, StoredObject
from clay_assets.tiles.inventory import list_chips, write_inventory
from clay_assets_tests.embedding.streaming import MeanEmbedder, chip_of_value, number_of, within
from clay_assets_tests.geotiffs import chip_name
from clay_model import Embedder

PATIENCE = 60
"""Seconds after which a test is called a deadlock."""


class MeanEncoder(ClayEncoder):
    """A resource that gives a `MeanEmbedder`, and counts how often it was asked for one."""

    _asked: int = PrivateAttr(default=0)

    @property
    def asked(self) -> int:
        """Times that somebody wanted the network."""
        return self._asked

    def embedders(self, wanted: Fingerprint) -> Sequence[Embedder]:  # noqa: ARG002
        """One network."""
        self._asked += 1
        return [MeanEmbedder()]


class ChipStore(Store):
    """A store that keeps a record of its reads, and can do something before one."""

    def __init__(self, uri: Path) -> None:
        super().__init__(uri)
        self.reads: list[int] = []
        self.before: Callable[[StoredObject | str], None] = lambda _: None
        self._lock = threading.Lock()

    def read(self, target: StoredObject | str) -> bytes:
        """As any store."""
        self.before(target)
        with self._lock:
            assert isinstance(target, StoredObject)
            self.reads.append(number_of(target))
        return super().read(target)

    def take_reads(self) -> list[int]:
        """Numbers of the chips read since this was last called."""
        with self._lock:
            reads, self.reads = sorted(self.reads), []
        return reads


class Scene:
    """A folder of chips, a work store, and an encoder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.chips = ChipStore(root / "chips")
        self.work = Store(root / "work")
        (root / "checkpoint").write_bytes(b"weights")

    def encoder(self, **settings: str) -> MeanEncoder:
        """The resource with some fields set."""
        fields = {"precision": "fp32", "device": "cpu", "batch_size": "2"} | settings
        checkpoint = ObjectStore(uri=str(self.root / "checkpoint"))
        return MeanEncoder(checkpoint=checkpoint, cache=str(self.root / "cache"), **fields)

    def put(self, tile: str, chips: Mapping[int, int | bytes]) -> None:
        """Lay chips down, by number with their pixels' value, and list them."""
        for number, content in chips.items():
            data = content if isinstance(content, bytes) else chip_of_value(content)
            self.chips.write(f"{tile}/2020-06-15/{chip_name(number, tile=tile)}", data)
        self.take_inventory(tile)

    def take_inventory(self, tile: str) -> None:
        """List a tile's chips."""
        write_inventory(self.work, tile, list_chips(self.chips, tile).chips)

    def run(self, plans: Mapping[str, TilePlan]) -> AbstractContextManager[EmbeddingRun]:
        """Start embedding what plans left to do."""
        encoder = self.encoder()
        return embedding_run(plans, self.chips, encoder, encoder.fingerprint())

    def plans(self, *tiles: str, **settings: str) -> dict[str, TilePlan]:
        """What is left to do of tiles under some settings."""
        return plan_tiles(self.work, tiles or ["27WXN"], self.encoder(**settings).fingerprint())

    def embed(
        self, tile: str = "27WXN", *, force: bool = False, encoder: MeanEncoder | None = None
    ) -> ResultsHeader:
        """Plan a tile and embed it."""
        encoder = encoder or self.encoder()
        fingerprint = encoder.fingerprint()
        plans = plan_tiles(self.work, [tile], fingerprint, force=force)

        def work() -> ResultsHeader:
            with embedding_run(plans, self.chips, encoder, fingerprint) as run:
                return embed_tile(plans[tile], run, self.work)

        return within(PATIENCE, work)

    def values(self, tile: str = "27WXN") -> dict[int, float | str]:
        """What the results say of each chip by its number: its mean pixel, or why it was skipped."""
        results = TileResults.open(self.work, tile)
        assert results is not None
        with results:
            rows = results.columns(["source_url", "embeddings", "reason"]).to_pylist()
        return {int(row["source_url"][-8:-4]): row["reason"] or row["embeddings"][0] for row in rows}
