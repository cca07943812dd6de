"""Embed a sample of chips again and compare with the published vectors.

Belongs here: choosing chips, reading their rows, the tolerance. Does not belong here: how chips become
vectors (`embedding.stream`).
"""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.embedding.stream import ChipStream
from clay_assets.parquet import vectors
from clay_assets.results.fingerprint import Fingerprint, chip_key
from clay_assets.results.outcomes import Outcome, Skipped
from clay_assets.results.target import Target
from clay_assets.state.states import TileStores
from clay_assets.storage import Store, StoredObject
from clay_assets.verify.facts import Fault, FileFacts, TileFacts

TOLERANCE: Mapping[str, float] = {"fp32": 1e-3, "bf16": 2e-2}
"""Relative distance of a chip's vectors that passes, by the precision of the file.

Measured (docs/performance.md): fp32 of two implementations 1.0e-7, with weights whose softmax saturates 3e-4;
bf16 from fp32 2.4e-3 to 4.0e-3. Two chips of one tile, at a cosine of 0.973 in the median and at most 0.993
(`quality.judges`), are 0.12 and more apart: another chip's vector never passes.
"""


@dataclass(frozen=True)
class Recomputed:
    """What came of a sample.

    Attributes:
        chips: Embedded again and compared.
        largest: Relative distance, of those with vectors.
        faults: Chips beyond the tolerance.
    """

    chips: int
    largest: float
    faults: Sequence[Fault]


@dataclass(frozen=True)
class _Sampled:
    """A chip, and its published vectors (W, N) float32."""

    chip: StoredObject
    published: NDArray[np.float32]


def recompute(
    stores: TileStores,
    tiles: Sequence[TileFacts],
    target: Target,
    encoder: EncoderSettings,
    *,
    count: int,
    seed: int = 0,
) -> Recomputed:
    """Embed a sample of the published chips again.

    Args:
        stores: Chips and published files.
        tiles: Without faults; each of their files is as likely to be drawn as it has rows.
        target: What the settings ask for.
        encoder: Gives the network.
        count: Chips to draw; fewer where the files hold fewer.
        seed: The same draws the same chips.

    Raises:
        StorageError: If a store refuses, or a chip cannot be fetched.
        CheckpointError: If the checkpoint is damaged.
        SettingsError: If a setting is invalid.
    """
    with_rows = [facts for facts in tiles if facts.files and facts.files[-1].rows]
    if not with_rows:
        return Recomputed(0, 0.0, [])
    draw = random.Random(seed)  # noqa: S311 - a sample, no secret
    weights = [facts.files[-1].rows for facts in with_rows]
    drawn = Counter(draw.choices(range(len(with_rows)), weights, k=count))
    by_precision: dict[Fingerprint, dict[str, list[_Sampled]]] = defaultdict(dict)
    files: dict[str, FileFacts] = {}
    for index, number in sorted(drawn.items()):
        facts = with_rows[index]
        file = files[facts.tile] = facts.files[-1]
        precision = file.made["precision"]
        fingerprint = next(known for known in target.fingerprints if known.precision == precision)
        by_precision[fingerprint][facts.tile] = _sample(stores.output, facts, number, draw)
    compared = [
        (tile, found, outcome)
        for fingerprint, sampled in by_precision.items()
        for tile, found, outcome in _embedded(stores.chips, fingerprint, sampled, encoder)
    ]
    distances = [_distance(found.published, outcome) for _, found, outcome in compared]
    faults = []
    for (tile, found, outcome), distance in zip(compared, distances, strict=True):
        tolerance = TOLERANCE[files[tile].made["precision"]]
        if isinstance(outcome, Skipped):
            what = f"{found.chip.url} is skipped now ({outcome.reason}: {outcome.detail}), and is published"
            faults.append(Fault("other vectors", tile, what, files[tile].file.url))
        elif not distance <= tolerance:
            what = f"{found.chip.url} is {distance:.2g} away from its vectors, expected at most {tolerance:g}"
            faults.append(Fault("other vectors", tile, what, files[tile].file.url))
    return Recomputed(len(compared), float(np.nanmax([0.0, *distances])), faults)


def _sample(output: Store, facts: TileFacts, number: int, draw: random.Random) -> list[_Sampled]:
    """Chips of a file with their rows' vectors; reads no other row group than theirs."""
    present = {chip_key(chip.url, facts.tile): chip for chip in facts.chips}
    with (
        closing(output.open(facts.files[-1].file)) as source,
        pq.ParquetFile(source, pre_buffer=False) as parquet,
    ):
        column = parquet.read(columns=["source_url"])["source_url"]
        urls = sorted(set(column.to_pylist()))
        chosen = sorted(draw.sample(urls, min(number, len(urls))))
        found: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
        start = 0
        for group in range(parquet.num_row_groups):
            size = parquet.metadata.row_group(group).num_rows
            wanted = pc.is_in(column.slice(start, size), pa.array(chosen))
            if pc.any(wanted).as_py():
                table = parquet.read_row_group(group, columns=["source_url", "embeddings"]).filter(wanted)
                for batch in table.to_batches():
                    for url, vector in zip(
                        batch["source_url"].to_pylist(), vectors(batch["embeddings"]), strict=True
                    ):
                        found[url].append(vector.copy())
            start += size
    return [_Sampled(present[chip_key(url, facts.tile)], np.stack(found[url])) for url in chosen]


def _embedded(
    chips: Store,
    fingerprint: Fingerprint,
    sampled: Mapping[str, Sequence[_Sampled]],
    encoder: EncoderSettings,
) -> list[tuple[str, _Sampled, Outcome]]:
    """What becomes of sampled chips now, by tile."""
    embedders = encoder.embedders(fingerprint)
    level = next(level for level in embedders[0].spec.levels if level == fingerprint.level)
    with ChipStream(
        read=chips.read,
        embedders=embedders,
        level=level,
        batch_size=encoder.chips_per_batch(embedders),
        max_nodata=encoder.max_nodata,
    ) as stream:
        for tile, found in sampled.items():
            stream.add(tile, [one.chip for one in found])
        stream.finish()
        return [
            (tile, one, outcome)
            for tile, found in sampled.items()
            for one, outcome in zip(found, stream.results(tile), strict=True)
        ]


def _distance(published: NDArray[np.float32], outcome: Outcome) -> float:
    """‖now - published‖ / ‖published‖ over all windows and places; NaN where they cannot be compared."""
    if isinstance(outcome, Skipped) or outcome.vectors.size != published.size:
        return float("nan")
    now = outcome.vectors.reshape(published.shape).astype(np.float64)
    return float(np.linalg.norm(now - published) / np.linalg.norm(published.astype(np.float64)))
