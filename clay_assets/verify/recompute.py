"""Embeds a sample of published chips again and compares the vectors."""

import bisect
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.embedding.stream import ChipStream
from clay_assets.parquet import DamagedFileError
from clay_assets.reading.files import SourceFile, facts_of
from clay_assets.reading.scan import embedding_array, opened
from clay_assets.results import Fingerprint, Target, chip_key
from clay_assets.results.outcomes import Outcome, Skipped
from clay_assets.state.states import TileStores
from clay_assets.storage import Store, StoredObject
from clay_assets.verify.check import CheckedTile, Fault

Vectors = NDArray[np.float32]

TOLERANCE: Mapping[str, float] = {"fp32": 1e-3, "bf16": 2e-2}
"""Largest accepted relative distance of a chip's vectors, by the file's precision.

Measured (docs/performance-notes.md): fp32 of two implementations 9.6e-8, with weights whose softmax saturates
3e-4; bf16 from fp32 2.4e-3 to 3.97e-3. Two chips of one tile, at a cosine of 0.973 in the median and at most
0.993 (`quality.vectors`), are 0.12 and more apart: another chip's vector never passes.
"""


class _Sample(NamedTuple):
    """A chip, its file's URL, and its published vectors (W, N)."""

    tile: str
    file: str
    chip: StoredObject
    published: Vectors


def recompute(
    stores: TileStores,
    tiles: Sequence[CheckedTile],
    target: Target,
    encoder: EncoderSettings,
    count: int,
    seed: int,
) -> tuple[list[Fault], int, float]:
    """Embed the chips of randomly drawn rows of tiles without faults again and compare.

    `count` is a number of rows: a chip with several windows has several. Returns the chips beyond the
    tolerance and the files whose rows cannot be compared; the number of chips; the largest relative distance
    among those with vectors. Raises StorageError, SettingsError, CheckpointError (a damaged checkpoint).
    """
    faults: list[Fault] = []
    samples: dict[Fingerprint, list[_Sample]] = defaultdict(list)
    for tile, places in _draw([tile for tile in tiles if tile.files], count, seed):
        listed, provenance, _ = tile.files[-1]
        fingerprint = next(one for one in target.fingerprints if one.precision == provenance["precision"])
        try:
            vectors = _vectors(SourceFile(stores.output, listed), places)
        except DamagedFileError as error:
            faults.append(Fault("damaged", tile.tile, str(error), listed.url))
            continue
        chips = {chip_key(chip.url, tile.tile): chip for chip in tile.chips}
        for url in sorted(vectors):
            if chip := chips.get(chip_key(url, tile.tile)):
                samples[fingerprint].append(_Sample(tile.tile, listed.url, chip, vectors[url]))
            else:
                what = f"the chip {url} has a row and is not in the bucket"
                faults.append(Fault("stale", tile.tile, what, listed.url))
    largest = 0.0
    for fingerprint, sampled in samples.items():
        limit = TOLERANCE[fingerprint.precision]
        for sample, outcome in _embedded(stores.chips, fingerprint, sampled, encoder):
            distance = _distance(sample.published, outcome)
            if np.isfinite(distance):
                largest = max(largest, distance)
            if distance <= limit:
                continue
            what = f"is {distance:.2g} away from its published vectors, expected at most {limit:g}"
            if isinstance(outcome, Skipped):
                what = f"is published, and now skipped ({outcome.reason}: {outcome.detail})"
            faults.append(Fault("other vectors", sample.tile, f"{sample.chip.url} {what}", sample.file))
    return faults, sum(map(len, samples.values())), largest


def _draw(tiles: Sequence[CheckedTile], count: int, seed: int) -> Iterator[tuple[CheckedTile, list[int]]]:
    """Draw rows of the tiles' files; yield the tiles that have some, with the rows' places in the file."""
    ends = list(itertools.accumulate(tile.files[-1].rows for tile in tiles))
    rows = range(ends[-1] if ends else 0)
    drawn = random.Random(seed).sample(rows, min(count, len(rows)))  # noqa: S311 - no secret
    for index, found in itertools.groupby(sorted(drawn), lambda row: bisect.bisect_right(ends, row)):
        yield tiles[index], [ends[index] - 1 - row for row in found]


def _vectors(file: SourceFile, places: Sequence[int]) -> dict[str, Vectors]:
    """Return the vectors (W, N) of the chips of some rows, by URL; decode only row groups that have them."""
    found: dict[str, list[Vectors]] = defaultdict(list)
    with opened(file) as parquet:
        facts = facts_of(file, parquet)
        urls = parquet.read(["source_url"])["source_url"].to_numpy()
        wanted = np.isin(urls, urls[places])
        ends = np.cumsum([parquet.metadata.row_group(group).num_rows for group in facts.groups])
        for group, mask in enumerate(np.split(wanted, ends[:-1])):
            if mask.any():
                rows = parquet.read_row_group(group, ["source_url", "embeddings"]).filter(pa.array(mask))
                vectors = embedding_array(rows["embeddings"].combine_chunks(), facts)
                for url, vector in zip(rows["source_url"].to_pylist(), vectors, strict=True):
                    found[url].append(vector)
    return {url: np.stack(vectors) for url, vectors in found.items()}


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
