"""Tiles to embed: chips in a folder, a work store, and an encoder that computes only means."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clay_assets.chips import MAX_NODATA
from clay_assets.embedding import tile
from clay_assets.embedding.checkpoint_cache import CheckpointFacts, sha256_of
from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.embedding.plan import TilePlan, plan_tile
from clay_assets.embedding.progress import Progress
from clay_assets.embedding.run import EmbeddingRun
from clay_assets.pipeline import STEPS, Step, TileJob, TileOutcome, process_tiles
from clay_assets.results import Fingerprint, ResultsHeader, TileResults
from clay_assets.results.pieces import PieceLimits
from clay_assets.results.reader import PRECISIONS
from clay_assets.state.states import TileStores
from clay_assets.storage import Store, StoredObject, TransferFailed
from clay_assets.tiles.inventory import list_chips, read_inventory, write_inventory
from clay_assets_tests.embedding.streaming import MeanEmbedder, chip_of_value, number_of, within
from clay_assets_tests.geotiffs import chip_name
from clay_model import Embedder

TIMEOUT = 60
"""Seconds after which a test counts as deadlocked."""


@dataclass(frozen=True)
class MeanEncoder(EncoderSettings):
    """Settings that load a `MeanEmbedder`, and record each request for one.

    Attributes:
        embedder: What `embedders` returns.
        requests: Fingerprint of each call of `embedders`.
    """

    embedder: MeanEmbedder = field(default_factory=MeanEmbedder, compare=False)
    requests: list[Fingerprint] = field(default_factory=list, compare=False, repr=False)

    def local_checkpoint(self) -> tuple[Path, CheckpointFacts]:
        """The file, described as `embedder` declares."""
        found = self.checkpoint.stat()
        path = Path(found.url)
        name, untrained = self.embedder.model_name, self.embedder.untrained
        return path, CheckpointFacts(found.url, found.etag, found.size, sha256_of(path), name, untrained)

    @property
    def loads(self) -> int:
        """Calls of `embedders`."""
        return len(self.requests)

    def embedders(self, wanted: Fingerprint) -> Sequence[Embedder]:
        """One network at the precision of the fingerprint."""
        self.requests.append(wanted)
        self.embedder.precision = next(name for name in PRECISIONS if name == wanted.precision)
        return [self.embedder]


class ChipStore(Store):
    """A store that records its reads and calls `before` before each."""

    def __init__(self, uri: Path) -> None:
        super().__init__(uri)
        self.reads: list[int] = []
        self.before: Callable[[StoredObject], None] = lambda _: None
        self._lock = threading.Lock()

    def read(self, target: StoredObject | str) -> bytes:
        """As `Store`."""
        assert isinstance(target, StoredObject)
        self.before(target)
        with self._lock:
            self.reads.append(number_of(target))
        return super().read(target)

    def take_reads(self) -> list[int]:
        """Numbers of the chips read since the last call."""
        with self._lock:
            reads, self.reads = sorted(self.reads), []
        return reads


def embed_planned(
    plan: TilePlan, run: EmbeddingRun, work: Store, on_chip: Callable[[], None] = lambda: None
) -> ResultsHeader:
    """Embed one tile with the limits of a job."""
    return tile.embed_planned(plan, run, work, on_chip, PieceLimits())


class Scene:
    """A folder of chips, stores of work and of published files, and an encoder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.chips = ChipStore(root / "chips")
        self.work = Store(root / "work")
        self.output = Store(root / "output")
        (root / "checkpoint").write_bytes(b"weights")

    @property
    def stores(self) -> TileStores:
        """The three stores."""
        return TileStores(self.chips, self.work, self.output)

    def encoder(
        self,
        *,
        level: str = "",
        precision: str = "fp32",
        device: str = "cpu",
        batch_size: str = "2",
        embedder: MeanEmbedder | None = None,
        max_nodata: float = MAX_NODATA,
        allow_untrained: bool = False,
        checkpoint: str = "checkpoint",
    ) -> MeanEncoder:
        """Settings of the encoder."""
        return MeanEncoder(
            Store(self.root / checkpoint),
            level=level,
            precision=precision,
            device=device,
            batch_size=batch_size,
            cache=self.root / "cache",
            embedder=embedder or MeanEmbedder(),
            max_nodata=max_nodata,
            allow_untrained=allow_untrained,
        )

    def break_at(self, number: int, error: type[BaseException] = TransferFailed) -> None:
        """Raise when the chip of this number is read."""

        def fail(chip: StoredObject) -> None:
            if number_of(chip) == number:
                raise error("it broke")

        self.chips.before = fail

    def put(self, tile: str, chips: Mapping[int, int | bytes]) -> None:
        """Store chips (number → pixel value or bytes), and list them."""
        for number, content in chips.items():
            data = content if isinstance(content, bytes) else chip_of_value(content)
            self.chips.write(f"{tile}/2020-06-15/{chip_name(number, tile=tile)}", data)
        self.take_inventory(tile)

    def take_inventory(self, tile: str) -> None:
        """List a tile's chips."""
        write_inventory(self.work, tile, list_chips(self.chips, tile).chips)

    def plan(
        self,
        tile: str = "27WXN",
        *,
        force: bool = False,
        retry_skipped: bool = False,
        encoder: MeanEncoder | None = None,
    ) -> TilePlan:
        """Plan a tile."""
        target = (encoder or self.encoder()).target()
        chips = read_inventory(self.work, tile)
        return plan_tile(self.work, tile, chips, target, force=force, retry_skipped=retry_skipped)

    @contextmanager
    def run(self, *plans: TilePlan, encoder: MeanEncoder | None = None) -> Iterator[EmbeddingRun]:
        """Start to embed planned tiles."""
        encoder = encoder or self.encoder()
        with EmbeddingRun(self.chips, encoder, Progress()) as run:
            for plan in plans:
                run.add(plan)
            run.finish()
            yield run

    def embed(
        self,
        tile: str = "27WXN",
        *,
        force: bool = False,
        retry_skipped: bool = False,
        encoder: MeanEncoder | None = None,
    ) -> ResultsHeader:
        """Plan a tile and embed it."""
        encoder = encoder or self.encoder()
        plan = self.plan(tile, force=force, retry_skipped=retry_skipped, encoder=encoder)

        def work() -> ResultsHeader:
            with self.run(plan, encoder=encoder) as run:
                return embed_planned(plan, run, self.work)

        return within(TIMEOUT, work)

    def output_files(self) -> list[str]:
        """Names of the published files."""
        return sorted(path.name for path in (self.root / "output").glob("*.gpq"))

    def results(self, tile: str = "27WXN", *, encoder: MeanEncoder | None = None) -> TileResults:
        """A tile's results that count as current. The caller closes them."""
        results = (encoder or self.encoder()).target().results(self.work, tile)
        assert results is not None
        return results

    def values(self, tile: str = "27WXN", *, encoder: MeanEncoder | None = None) -> dict[int, float | str]:
        """Each chip's mean pixel, or why it was skipped, by its number, from the results."""
        with self.results(tile, encoder=encoder) as results:
            rows = results.columns(["source_url", "embeddings", "reason"]).to_pylist()
        return {int(row["source_url"][-8:-4]): row["reason"] or row["embeddings"][0] for row in rows}


def process(
    scene: Scene,
    tiles: Sequence[str],
    record: Callable[[TileOutcome], None] | None = None,
    *,
    stores: TileStores | None = None,
    encoder: EncoderSettings | None = None,
    steps: Sequence[Step] = STEPS,
    force: bool = False,
    retry_skipped: bool = False,
    version: int = 1,
    check: bool = False,
) -> dict[str, TileOutcome]:
    """Process tiles in a thread; returns the recorded outcomes in order."""
    outcomes: dict[str, TileOutcome] = {}

    def keep(outcome: TileOutcome) -> None:
        assert outcome.tile not in outcomes, "recorded twice"
        outcomes[outcome.tile] = outcome
        if record is not None:
            record(outcome)

    job = TileJob(
        stores or scene.stores,
        encoder or scene.encoder(),
        version=version,
        steps=steps,
        force=force,
        retry_skipped=retry_skipped,
        check=check,
    )
    within(TIMEOUT, lambda: process_tiles(tiles, job, keep, Progress()))
    return outcomes


def errors(outcomes: Mapping[str, TileOutcome]) -> dict[str, str]:
    """Names of the errors by tile; "" without an error."""
    return {tile: type(outcome.error).__name__ if outcome.error else "" for tile, outcome in outcomes.items()}


def reasons(outcome: TileOutcome) -> dict[int, str]:
    """Why chips of a tile were skipped, by their numbers."""
    assert outcome.results is not None, outcome.error
    return {int(skip["source_url"][-8:-4]): skip["reason"] for skip in outcome.results.summary.skipped}
