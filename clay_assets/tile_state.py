"""The state of a tile: what of it is in the bucket, what is embedded, what is published, and what is left.

One definition for the schedule, the sensor and the command line. It compares a fresh listing of the chips
with what the results and the published file say of themselves: no chip, no vector and no checkpoint is read.
Not here: doing what is left (`embedding`, `publishing`), or asking Dagster for it (`automation`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from clay_assets.checkpoint_cache import cache_folder, known_sha256
from clay_assets.inventory import list_chips
from clay_assets.publishing import inputs_of, made_from, published_files
from clay_assets.storage import ObjectChanged, ObjectMissing, Store, StoredObject
from clay_assets.tables import Fingerprint, chips_digest
from clay_assets.tile_results import ResultsHeader, TileResults
from clay_model.spec import PREPROCESSING_VERSION

State = Literal["new", "changed", "stale", "unpublished", "current", "unusable", "empty"]

STATES: Mapping[State, str] = MappingProxyType(
    {
        "new": "has chips, none embedded",
        "changed": "its chips are not those that were embedded: new, changed or removed ones",
        "stale": "the same chips, embedded with another checkpoint, level, precision or preprocessing",
        "unpublished": "embedded, but its published file is missing or of an earlier state",
        "current": "embedded and published as its chips are now",
        "unusable": "each of its chips was read and skipped: nothing to do until they change",
        "empty": "has no chips",
    }
)
"""Every state, those with work left first."""

LOOKERS = 32
"""Tiles looked at at a time: each takes three or four small requests, nearly all of it waiting."""


@dataclass(frozen=True)
class TileStores:
    """Where the chips, the results and the published files lie."""

    chips: Store
    work: Store
    output: Store


@dataclass(frozen=True)
class Wanted:
    """How tiles are to be embedded and published; what is None is not known in advance, so not compared.

    Attributes:
        level: `mean`, `patch` or `group`.
        version: Of the published files.
        precision: `fp32` or `bf16`; None where the hardware of the run decides.
        checkpoint_sha256: None where this machine has not worked it out yet.
        preprocessing: `clay_model.spec.PREPROCESSING_VERSION`.
    """

    level: str
    version: int
    precision: str | None = None
    checkpoint_sha256: str | None = None
    preprocessing: int = PREPROCESSING_VERSION

    @classmethod
    def by_settings(
        cls, *, level: str, precision: str, version: int, checkpoint: Store, cache: Path | None = None
    ) -> "Wanted":
        """What the settings ask for; nothing is downloaded or loaded to find out.

        Args:
            level: CLAY_LEVEL.
            precision: CLAY_PRECISION.
            version: CLAY_VERSION.
            checkpoint: Whose own address is CLAY_CHECKPOINT.
            cache: Folder of downloaded checkpoints; None: the user's.

        Raises:
            StorageError: If the checkpoint's store refuses.
        """
        return cls(
            level=level,
            version=version,
            precision=None if precision == "auto" else precision,
            checkpoint_sha256=known_sha256(checkpoint, cache or cache_folder()),
        )

    def differences(self, made: Fingerprint) -> str:
        """In what vectors are not as wanted; "" where they are."""
        pairs = (
            ("level", made.level, self.level),
            ("precision", made.precision, self.precision),
            ("preprocessing", made.preprocessing, self.preprocessing),
            ("checkpoint", made.checkpoint_sha256, self.checkpoint_sha256),
        )
        return ", ".join(
            f"{name} {str(got)[:12]}, wanted {str(wanted)[:12]}"
            for name, got, wanted in pairs
            if wanted is not None and got != wanted
        )


@dataclass(frozen=True)
class Rate:
    """How fast a tile was embedded.

    Attributes:
        chips: Encoded in the run that last worked on the tile.
        seconds: Wall time that it took.
        model: Name of the network.
        device: It ran on.
    """

    chips: int
    seconds: float
    model: str
    device: str

    @property
    def chips_per_second(self) -> float:
        """Chips by wall time."""
        return self.chips / self.seconds


@dataclass(frozen=True)
class TileState:
    """What a look at a tile showed.

    Attributes:
        tile: MGRS code.
        state: One of `STATES`.
        chips: Objects in the bucket that are chips by their names.
        bytes: Of all of them.
        todo: Chips to fetch and embed.
        todo_bytes: Of those.
        listed: One word for the chips listed: another chip or another ETag changes it.
        embedded: One word for the results at hand: what was embedded, and how; "" where there are none.
        detail: More about the state, for a person; may be "".
        rate: How fast it was embedded; None where nobody knows.
    """

    tile: str
    state: State
    chips: int
    bytes: int
    todo: int
    todo_bytes: int
    listed: str
    embedded: str = ""
    detail: str = ""
    rate: Rate | None = None


def look_at_tiles(stores: TileStores, tiles: Sequence[str], wanted: Wanted) -> list[TileState]:
    """Look at many tiles at once.

    One LIST for each tile's chips (each 1,000 of them), one reading of its results' footer and one of its
    published file's; one LIST for the store of published files.

    Args:
        stores: Where everything lies.
        tiles: MGRS codes.
        wanted: How they are to be embedded.

    Returns:
        The tiles' states, in the order given.

    Raises:
        StorageError: If a store refuses: nothing is said rather than half of it.
    """
    published = published_files(stores.output, wanted.version)
    with ThreadPoolExecutor(LOOKERS, thread_name_prefix="look") as pool:
        looks = pool.map(lambda tile: _look_again(stores, tile, wanted, published.get(tile, [])), tiles)
        return list(looks)  # at the first error the rest is cancelled


def in_words(states: Iterable[TileState], where: str) -> str:
    """What was looked at and what was found: "looked at 40 tiles under s3://…: 38 current, 1 empty, …"."""
    counts = Counter(look.state for look in states)
    found = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "there are none"
    return f"looked at {counts.total()} tiles under {where}: {found}"


def _look_again(stores: TileStores, tile: str, wanted: Wanted, files: list[StoredObject]) -> TileState:
    try:
        return _look(stores, tile, wanted, files)
    except ObjectChanged:  # a run stored the tile between two of our requests
        return _look(stores, tile, wanted, files)


def _look(stores: TileStores, tile: str, wanted: Wanted, files: list[StoredObject]) -> TileState:
    chips = list_chips(stores.chips, tile).chips
    size = sum(chip.size for chip in chips)
    new = TileState(tile, "new", len(chips), size, len(chips), size, chips_digest(chips))
    if not chips:
        return replace(new, state="empty")
    results = TileResults.open(stores.work, tile)
    if results is None:
        return new
    with results:
        header = results.header
        seen = replace(new, embedded=inputs_of(header), rate=_rate(header))
        differences = wanted.differences(header.making.fingerprint)
        if header.digest != new.listed or header.left:
            return _changed(seen, chips, results, differences)
    if differences:
        return replace(seen, state="stale", detail=differences)
    done = replace(seen, todo=0, todo_bytes=0)
    if not header.summary.embedded:
        return replace(done, state="unusable", detail=header.summary.skipped[0]["detail"])
    if not _is_published(stores.output, files, done.embedded):
        return replace(done, state="unpublished")
    return replace(done, state="current")


def _changed(
    seen: TileState, chips: Sequence[StoredObject], results: TileResults, differences: str
) -> TileState:
    """A tile whose chips differ from those embedded; where the settings differ too, all are to be done."""
    table = results.columns(["source_url", "etag"])
    known = dict(zip(table["source_url"].to_pylist(), table["etag"].to_pylist(), strict=True))
    differing = [chip for chip in chips if known.get(chip.url) != chip.etag]
    counts = Counter("changed" if chip.url in known else "new" for chip in differing)
    counts["removed"] = len(known.keys() - {chip.url for chip in chips})
    detail = ", ".join(f"{counts[kind]} {kind}" for kind in ("new", "changed", "removed") if counts[kind])
    todo = chips if differences else differing
    detail = detail or "unfinished"  # and since then exactly the unfinished chips were removed
    return replace(
        seen,
        state="changed",
        todo=len(todo),
        todo_bytes=sum(chip.size for chip in todo),
        detail=f"{detail}; {differences}" if differences else detail,
    )


def _rate(header: ResultsHeader) -> Rate | None:
    summary, making = header.summary, header.making
    if not summary.encoded or summary.seconds <= 0:
        return None
    return Rate(summary.encoded, summary.seconds, making.model, making.device)


def _is_published(output: Store, files: list[StoredObject], inputs: str) -> bool:
    """Whether exactly one file lies there, made from the results as they are."""
    if len(files) != 1:  # two: a run was killed between storing the new one and removing the old
        return False
    try:
        return made_from(output, files[0]) == inputs
    except (ObjectChanged, ObjectMissing):  # it is being replaced this moment
        return False
