"""`EmbeddingRun`: the streams and networks that the tiles of one run share, and the provenance of vectors."""

import importlib.metadata
import platform
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple, Self

from clay_assets import __version__
from clay_assets.chips import READER_VERSION
from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.embedding.energy import Counter, counter_of
from clay_assets.embedding.plan import TilePlan
from clay_assets.embedding.progress import Progress
from clay_assets.embedding.stream import ChipStream
from clay_assets.results import Fingerprint, Provenance
from clay_assets.storage import Store


class Network(NamedTuple):
    """A loaded network, and the stream of chips through it."""

    stream: ChipStream
    counter: Counter | None  # of its device's energy; None with several devices or no counter
    provenance: Provenance  # of its vectors


class EmbeddingRun:
    """The streams that the tiles of one run share. Use as a context manager.

    A network is loaded when the first tile with something to embed is added. There is one stream for each
    fingerprint: one, unless under precision `auto` some tiles have results of the other precision.
    """

    def __init__(self, chips: Store, encoder: EncoderSettings, progress: Progress) -> None:
        self.progress = progress
        self._chips = chips
        self._encoder = encoder
        self._ahead = 0  # chips in the streams whose tiles have not begun
        self._added: dict[str, float] = {}  # time at which each tile that is not embedded yet was added
        self._last_ended = 0.0
        self._networks: dict[Fingerprint, Network] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401 - passed on
        self._stack.__exit__(*error)

    @property
    def is_full(self) -> bool:
        """Whether more tiles ahead would not help the devices."""
        return self._ahead > sum(network.stream.capacity for network in self._networks.values())

    def add(self, plan: TilePlan) -> None:
        """Queue the chips of a tile. Raises the errors of `EncoderSettings.embedders`."""
        if not plan.todo:
            return
        if plan.fingerprint not in self._networks:
            self._networks[plan.fingerprint] = self._load(plan.fingerprint)
        self._networks[plan.fingerprint].stream.add(plan.tile, plan.todo)
        self._added[plan.tile] = time.perf_counter()
        self._ahead += len(plan.todo)
        self.progress.expect(len(plan.todo))

    def finish(self) -> None:
        """Declare that no more tiles follow."""
        for network in self._networks.values():
            network.stream.finish()

    def begin(self, plan: TilePlan) -> float:
        """Begin a tile and return when its time began, in seconds of `time.perf_counter`.

        Its first chips may have been embedded before the previous tile ended. The times of a run's tiles do
        not overlap, so that they add up to the time in which there was something to embed.
        """
        self._ahead -= len(plan.todo)
        self.progress.begin(plan.tile)
        return max(self._added.pop(plan.tile, time.perf_counter()), self._last_ended)

    def end(self) -> float:
        """End a tile, or move its end to now, and return the time."""
        self._last_ended = time.perf_counter()
        return self._last_ended

    def network(self, plan: TilePlan) -> Network | None:
        """Return the network that embeds a tile's chips; None if nothing is to be embedded."""
        return self._networks[plan.fingerprint] if plan.todo else None

    def provenance(self, plan: TilePlan) -> Provenance:
        """Return the provenance of a tile's vectors; of its stored results if nothing is to be embedded."""
        if plan.header is None or plan.todo:
            return self._networks[plan.fingerprint].provenance
        limit = self._encoder.max_nodata
        return replace(plan.header.provenance, reader=READER_VERSION, max_nodata=limit)

    def describe(self) -> str:
        """Return batches and times of the run's networks as text."""
        texts = []
        for fingerprint, network in self._networks.items():
            clock, why = network.stream.clock, ""
            if self._encoder.precision == "auto" and fingerprint.precision == "fp32":
                why = " (auto: the device does not multiply bf16 natively, or the tiles had it already)"
            texts.append(
                f"{fingerprint.model} at {fingerprint.precision}{why} on {network.provenance.device}:"
                f" {clock.batches} batches, the encoder waited {clock.waiting:.2f} s"
                f" of {clock.encoding + clock.waiting:.2f} s"
            )
        return "; ".join(texts) or "no chip had to be embedded: no network was loaded"

    def _load(self, fingerprint: Fingerprint) -> Network:
        embedders = self._encoder.embedders(fingerprint)
        first = embedders[0]
        stream = ChipStream(
            read=self._chips.read,
            embedders=embedders,
            level=next(level for level in first.spec.levels if level == fingerprint.level),
            batch_size=self._encoder.chips_per_batch(embedders),
            max_nodata=self._encoder.max_nodata,
        )
        self._stack.enter_context(stream)
        # Packages that influence the vectors.
        packages = ("torch", "rasterio", "imagecodecs", "numpy", "pyarrow")
        versions = " ".join(f"{name}/{importlib.metadata.version(name)}" for name in packages)
        provenance = Provenance(
            fingerprint=fingerprint,
            shape=first.spec.embedding_shape(fingerprint.level, first.dimensions.dim),
            untrained=first.untrained,
            device=", ".join(str(embedder.device) for embedder in embedders),
            software=f"clay-assets/{__version__} {versions} python/{platform.python_version()}",
            reader=READER_VERSION,
            max_nodata=self._encoder.max_nodata,
        )
        counter = counter_of(str(first.device)) if len(embedders) == 1 else None
        return Network(stream, counter, provenance)
