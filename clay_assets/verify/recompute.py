"""Embeds a sample of published chips again and compares the vectors."""

import bisect
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.embedding.stream import ChipStream
from clay_assets.parquet import DamagedFileError
from clay_assets.reading.files import SourceFile
from clay_assets.reading.scan import blocks, footers, tasks
from clay_assets.reading.selection import Selection
from clay_assets.results.fingerprint import Fingerprint, chip_key
from clay_assets.results.outcomes import Outcome, Skipped
from clay_assets.results.target import Target
from clay_assets.state.states import TileStores
from clay_assets.storage import Store, StoredObject
from clay_assets.verify.faults import Fault, TileFacts

Vectors = NDArray[np.float32]

TOLERANCE: Mapping[str, float] = {"fp32": 1e-3, "bf16": 2e-2}
"""Largest accepted relative distance of a chip's vectors, by the file's precision.

Measured (docs/performance.md): fp32 of two implementations 1.0e-7, with weights whose softmax saturates 3e-4;
bf16 from fp32 2.4e-3 to 4.0e-3. Two chips of one tile, at a cosine of 0.973 in the median and at most 0.993
(`quality.vectors`), are 0.12 and more apart: another chip's vector never passes.
"""


@dataclass(frozen=True)
class Recomputed:
    """Result of a sample.

    Attributes:
        chips: Number of chips embedded again.
        largest: Largest relative distance among those with vectors.
        faults: Chips beyond the tolerance, and files whose rows cannot be compared.
    """

    chips: int
    largest: float
    faults: Sequence[Fault]


@dataclass(frozen=True)
class _Sample:
    """A chip, its file's URL, and its published vectors (W, N)."""

    tile: str
    file: str
    chip: StoredObject
    published: Vectors


@dataclass(frozen=True)
class _OfChips(Selection):
    """The rows of some chips."""

    urls: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        return ["source_url"]

    def matches(self, rows: pa.Table) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = pc.is_in(rows["source_url"], pa.array(self.urls)).to_numpy()
        return mask


def recompute(
    stores: TileStores,
    tiles: Sequence[TileFacts],
    target: Target,
    encoder: EncoderSettings,
    *,
    count: int,
    seed: int = 0,
) -> Recomputed:
    """Embed the chips of randomly drawn rows again and compare.

    Args:
        stores: Chips and published files.
        tiles: Tiles without faults.
        target: The settings' fingerprints.
        encoder: Settings of the network.
        count: Rows to draw; a chip with several windows has several rows.
        seed: Seed of the random sample.

    Raises:
        StorageError: A store refuses, or a chip cannot be fetched.
        CheckpointError: The checkpoint is damaged.
        SettingsError: A setting is invalid.
    """
    tiles = [facts for facts in tiles if facts.files and facts.files[-1].rows]
    ends = list(itertools.accumulate(facts.files[-1].rows for facts in tiles))
    drawn: dict[int, list[int]] = defaultdict(list)
    rows = range(ends[-1] if ends else 0)
    for row in random.Random(seed).sample(rows, min(count, len(rows))):  # noqa: S311 - no secret
        index = bisect.bisect_right(ends, row)
        drawn[index].append(ends[index] - 1 - row)
    faults: list[Fault] = []
    samples: dict[Fingerprint, list[_Sample]] = defaultdict(list)
    for index, places in sorted(drawn.items()):
        facts = tiles[index]
        precision = facts.files[-1].provenance["precision"]
        fingerprint = next(known for known in target.fingerprints if known.precision == precision)
        try:
            for found in _published(stores.output, facts, places):
                if isinstance(found, Fault):
                    faults.append(found)
                else:
                    samples[fingerprint].append(found)
        except DamagedFileError as error:
            faults.append(Fault("damaged", facts.tile, str(error), facts.files[-1].file.url))
    largest = 0.0
    for fingerprint, sampled in samples.items():
        for sample, outcome in _embedded(stores.chips, fingerprint, sampled, encoder):
            distance = _distance(sample.published, outcome)
            largest = max(largest, distance) if np.isfinite(distance) else largest
            limit = TOLERANCE[fingerprint.precision]
            if isinstance(outcome, Skipped):
                what = f"is published, and now skipped ({outcome.reason}: {outcome.detail})"
            elif not distance <= limit:
                what = f"is {distance:.2g} away from its published vectors, expected at most {limit:g}"
            else:
                continue
            faults.append(Fault("other vectors", sample.tile, f"{sample.chip.url} {what}", sample.file))
    return Recomputed(sum(map(len, samples.values())), largest, faults)


def _published(output: Store, facts: TileFacts, places: Sequence[int]) -> Iterator[_Sample | Fault]:
    """Yield the chips of some rows of a tile's file; decode vectors of their row groups only."""
    file = SourceFile(output, facts.files[-1].file)
    parts = tasks([file], footers([file]))
    found = [block for part in parts for block in blocks(part, ["source_url"], vectors=False)]
    urls = pa.concat_tables([block.rows for block in found])["source_url"].take(pa.array(places))
    chosen = _OfChips(urls=tuple(urls.unique().to_pylist()))
    vectors: dict[str, list[Vectors]] = defaultdict(list)
    for block in itertools.chain.from_iterable(blocks(part, ["source_url"], chosen) for part in parts):
        for url, vector in zip(block.rows["source_url"].to_pylist(), block.vectors, strict=True):
            vectors[url].append(vector)
    chips = {chip_key(chip.url, facts.tile): chip for chip in facts.chips}
    for url in sorted(vectors):
        chip = chips.get(chip_key(url, facts.tile))
        if chip is None:
            yield Fault("stale", facts.tile, f"the chip {url} has a row and is not in the bucket", file.url)
        else:
            yield _Sample(facts.tile, file.url, chip, np.stack(vectors[url]))


def _embedded(
    chips: Store, fingerprint: Fingerprint, samples: Sequence[_Sample], encoder: EncoderSettings
) -> Iterator[tuple[_Sample, Outcome]]:
    embedders = encoder.embedders(fingerprint)
    by_tile = {tile: list(found) for tile, found in itertools.groupby(samples, lambda sample: sample.tile)}
    with ChipStream(
        read=chips.read,
        embedders=embedders,
        level=next(level for level in embedders[0].spec.levels if level == fingerprint.level),
        batch_size=encoder.chips_per_batch(embedders),
        max_nodata=encoder.max_nodata,
    ) as stream:
        for tile, found in by_tile.items():
            stream.add(tile, [sample.chip for sample in found])
        stream.finish()
        for tile, found in by_tile.items():
            yield from zip(found, stream.results(tile), strict=True)


def _distance(published: Vectors, outcome: Outcome) -> float:
    """Return ‖now - published‖ / ‖published‖ over all windows and places; NaN if they cannot be compared."""
    if isinstance(outcome, Skipped) or outcome.vectors.size != published.size:
        return float("nan")
    now = outcome.vectors.reshape(published.shape).astype(np.float64)
    return float(np.linalg.norm(now - published) / np.linalg.norm(published.astype(np.float64)))
