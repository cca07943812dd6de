"""`EmbeddingRun`: the streams and networks that the tiles of one run share.

Belongs here: when a network is loaded, the provenance of vectors. Does not belong here: one tile's outcomes
(`tile`), turning chips into vectors (`stream`).
"""

import importlib.metadata
import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from clay_assets import __version__
from clay_assets.chips import READER_VERSION
from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.embedding.energy import Counter, counter_of
from clay_assets.embedding.plan import TilePlan
from clay_assets.embedding.progress import Progress
from clay_assets.embedding.stream import ChipStream
from clay_assets.results import Fingerprint, Provenance
from clay_assets.storage import Store
from clay_model import Embedder

SOFTWARE = ("torch", "rasterio", "imagecodecs", "numpy", "pyarrow")
"""Packages that influence the vectors; results and files name their versions."""


class EmbeddingRun:
    """The streams that the tiles of one run share. Use as a context manager.

    A network is loaded when the first tile with something to embed is added. There is one stream for each
    fingerprint: one, unless under precision `auto` some tiles have results of the other precision.

    Attributes:
        ahead: Number of chips in the stream whose tiles have not begun.
        progress: Counts the chips.
    """

    def __init__(self, chips: Store, encoder: EncoderSettings, progress: Progress) -> None:
        """Prepare the run; nothing starts yet.

        Args:
            chips: Store of chips.
            encoder: Loads the network, one copy a device.
            progress: Counts the chips.
        """
        self.ahead = 0
        self.progress = progress
        self._chips = chips
        self._encoder = encoder
        self._added: dict[str, float] = {}  # time at which each tile that is not embedded yet was added
        self._last_ended = 0.0
        self._streams: dict[Fingerprint, ChipStream] = {}
        self._counters: dict[Fingerprint, Counter | None] = {}
        self._provenances: dict[Fingerprint, Provenance] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def is_full(self) -> bool:
        """Whether more tiles ahead would not help the devices."""
        return bool(self._streams) and self.ahead > sum(stream.capacity for stream in self._streams.values())

    def add(self, plan: TilePlan) -> None:
        """Queue the chips of a tile.

        Raises:
            CheckpointError: If the file is not a checkpoint of a known model.
            StorageError: If the checkpoint cannot be fetched, or was replaced since the plans were made.
            SettingsError: If a setting is invalid.
        """
        if not plan.todo:
            return
        if plan.fingerprint not in self._streams:
            self._start(plan.fingerprint)
        self._streams[plan.fingerprint].add(plan.tile, plan.todo)
        self._added[plan.tile] = time.perf_counter()
        self.ahead += len(plan.todo)
        self.progress.expect(len(plan.todo))

    def finish(self) -> None:
        """Declare that no more tiles follow."""
        for stream in self._streams.values():
            stream.finish()

    def begin(self, plan: TilePlan) -> float:
        """Begin a tile and return when its time began, in seconds of `time.perf_counter`.

        Its first chips may have been embedded before the previous tile ended. The times of a run's tiles do
        not overlap, so that they add up to the time in which there was something to embed.
        """
        self.ahead -= len(plan.todo)
        self.progress.begin(plan.tile)
        return max(self._added.pop(plan.tile, time.perf_counter()), self._last_ended)

    def end(self) -> float:
        """End a tile and return the time."""
        self._last_ended = time.perf_counter()
        return self._last_ended

    def stream(self, plan: TilePlan) -> ChipStream:
        """Return the stream that has a tile's chips."""
        return self._streams[plan.fingerprint]

    def counter(self, plan: TilePlan) -> Counter | None:
        """Return the energy counter of a tile's device; None with several devices or no counter."""
        return self._counters.get(plan.fingerprint) if plan.todo else None

    def provenance(self, plan: TilePlan) -> Provenance:
        """Return the provenance of a tile's vectors; of its stored results if nothing is to be embedded."""
        made = self._provenances.get(plan.fingerprint) if plan.todo else None
        if made is not None:
            return made
        assert plan.header is not None  # noqa: S101 - else every chip would be to embed
        limit = self._encoder.max_nodata
        return replace(plan.header.provenance, reader=READER_VERSION, max_nodata=limit)

    def describe(self) -> str:
        """Return batches and times of the run's encoders as text, one line for each network."""
        if not self._streams:
            return "no chip had to be embedded: no network was loaded"
        return "; ".join(self._described(fingerprint) for fingerprint in self._streams)

    def _described(self, fingerprint: Fingerprint) -> str:
        clock, provenance = self._streams[fingerprint].clock, self._provenances[fingerprint]
        precision = fingerprint.precision
        if self._encoder.precision == "auto" and precision == "fp32":
            precision += " (auto: the device does not multiply bf16 natively, or the tiles had it already)"
        return (
            f"{provenance.model} at {precision} on {provenance.device}: {clock.batches} batches,"
            f" the encoder waited {clock.waiting:.2f} s of {clock.encoding + clock.waiting:.2f} s"
        )

    def _start(self, fingerprint: Fingerprint) -> None:
        embedders = self._encoder.embedders(fingerprint)
        level = next(level for level in embedders[0].spec.levels if level == fingerprint.level)
        stream = ChipStream(
            read=self._chips.read,
            embedders=embedders,
            level=level,
            batch_size=self._encoder.chips_per_batch(embedders),
            max_nodata=self._encoder.max_nodata,
        )
        self._streams[fingerprint] = self._stack.enter_context(stream)
        self._counters[fingerprint] = counter_of(str(embedders[0].device)) if len(embedders) == 1 else None
        self._provenances[fingerprint] = _provenance(fingerprint, embedders, self._encoder.max_nodata)


def _provenance(fingerprint: Fingerprint, embedders: Sequence[Embedder], max_nodata: float) -> Provenance:
    first = embedders[0]
    versions = {"clay-assets": __version__} | {name: importlib.metadata.version(name) for name in SOFTWARE}
    versions["python"] = platform.python_version()
    return Provenance(
        fingerprint=fingerprint,
        shape=first.spec.embedding_shape(fingerprint.level, first.dimensions.dim),
        untrained=first.untrained,
        device=", ".join(str(embedder.device) for embedder in embedders),
        software=" ".join(f"{name}/{version}" for name, version in versions.items()),
        reader=READER_VERSION,
        max_nodata=max_nodata,
    )
