"""Facts about tiles and published files, and the faults that follow from them. Fetches nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from clay_assets.publishing.versions import FORMAT_VERSION
from clay_assets.results.target import Target
from clay_assets.storage import StoredObject

Kind = Literal[
    "missing tile",
    "missing chips",
    "stale",
    "several files",
    "damaged",
    "orphaned",
    "mixed models",
    "other vectors",
]

KINDS: Mapping[Kind, str] = {
    "missing tile": "the tile has chips and no published file",
    "missing chips": "the file lacks chips of the bucket",
    "stale": "the file was made from other chips or with other settings",
    "several files": "the tile has more than one file of the version",
    "damaged": "the file cannot be read, or contradicts its own metadata",
    "orphaned": "the file's tile has no chips or is not in the manifest",
    "mixed models": "the version has files of several models, checkpoints or levels",
    "other vectors": "chips embedded again have other vectors than the file",
}
"""Every kind of fault, with its description."""


@dataclass(frozen=True)
class Fault:
    """A difference between the output and what it should be.

    Attributes:
        kind: One of `KINDS`.
        tile: MGRS code; "" for a fault of the whole version.
        what: The value found and the value expected.
        url: URL of the file; "" for a fault without a single file.
    """

    kind: Kind
    tile: str
    what: str
    url: str = ""


@dataclass(frozen=True)
class FileFacts:
    """A published file.

    Attributes:
        file: The object as listed.
        rows: Number of rows, from the footer.
        provenance: Names without their prefix; empty if the file cannot be read.
        faults: Faults of the file by itself, one sentence each.
        unlisted: URLs of rows whose chip is not in the bucket; found only by reading every row.
        chips: Number of chips that have rows; None if the rows were not read.
    """

    file: StoredObject
    rows: int = 0
    provenance: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[str] = ()
    unlisted: Sequence[str] = ()
    chips: int | None = None

    @property
    def model(self) -> str:
        """Model, level and the first 12 digits of the checkpoint's hash."""
        get = self.provenance.get
        return f"{get('model')} {get('level')} {get('checkpoint_sha256', '')[:12]}"

    def count(self, name: str) -> int:
        """Return a number of the provenance; 0 if it is missing."""
        text = self.provenance.get(name, "")
        return int(text) if text.isdecimal() else 0


@dataclass(frozen=True)
class TileFacts:
    """A tile of the manifest.

    Attributes:
        tile: MGRS code.
        chips: The bucket's chips.
        inputs: Accepted values of a file's provenance `inputs`, one for each accepted precision.
        files: Published files of the version.
        unusable: Why none of the chips can be embedded; "" if some can, or if it is unknown.
        embedded: Whether the results are complete, for a tile without a file.
    """

    tile: str
    chips: Sequence[StoredObject]
    inputs: frozenset[str] = frozenset()
    files: Sequence[FileFacts] = ()
    unusable: str = ""
    embedded: bool = False


def find_faults(
    tiles: Sequence[TileFacts], orphans: Mapping[str, Sequence[StoredObject]], target: Target
) -> list[Fault]:
    """Return all faults: those of each tile, then orphaned files, then mixed models.

    Args:
        tiles: Tiles of the manifest.
        orphans: Published files of tiles without chips or outside of the manifest, by tile.
        target: The settings' fingerprints.
    """
    faults = [fault for facts in tiles for fault in _tile_faults(facts, target)]
    for tile, files in orphans.items():
        faults += [Fault("orphaned", tile, "no chips, or not in the manifest", file.url) for file in files]
    models = Counter(file.model for facts in tiles for file in facts.files if file.provenance)
    if len(models) > 1:
        named = ", ".join(f"{count:,} files of {model}" for model, count in models.most_common())
        what = f"{named}; expected one model: publish under another CLAY_VERSION"
        faults.append(Fault("mixed models", "", what))
    return faults


def _tile_faults(facts: TileFacts, target: Target) -> Iterator[Fault]:
    if not facts.chips:  # a file of such a tile is an orphan
        return
    if not facts.files and not facts.unusable:
        state = "embedded, not published" if facts.embedded else "not embedded"
        yield Fault("missing tile", facts.tile, f"{len(facts.chips):,} chips, {state}")
    if len(facts.files) > 1:
        yield Fault("several files", facts.tile, f"{len(facts.files)} files of one version, expected one")
    for file in facts.files:
        for kind, what in _file_faults(facts, file, target):
            yield Fault(kind, facts.tile, what, file.file.url)


def _file_faults(facts: TileFacts, file: FileFacts, target: Target) -> Iterator[tuple[Kind, str]]:
    if file.faults:
        yield "damaged", " ".join(file.faults)
    if not file.provenance:
        return
    if differences := _other_settings(file.provenance, target):
        yield "stale", differences
        return
    listed, used = len(facts.chips), file.count("chips")
    if file.provenance.get("inputs") not in facts.inputs:
        what = f"made from {used:,} chips, the bucket has {listed:,}"
        if used < listed:
            yield "missing chips", what
        else:
            yield "stale", f"{what}, or changed or moved ones"
        return
    expected = used - file.count("skipped")
    found, noun = (file.rows, "rows") if file.chips is None else (file.chips, "chips with rows")
    if found < expected:
        yield "missing chips", f"{found:,} {noun}, expected {expected:,}"
    if file.unlisted:
        yield (
            "stale",
            f"{len(file.unlisted):,} chips with rows are not in the bucket, such as {file.unlisted[0]}",
        )


def _other_settings(provenance: Mapping[str, str], target: Target) -> str:
    """Name the settings of a file that differ from the nearest accepted fingerprint."""
    names = ("model", "checkpoint_sha256", "level", "precision", "preprocessing")
    differences = min(
        (
            [
                f"{name} is {provenance.get(name, 'unknown')[:12]}, expected {str(expected)[:12]}"
                for name in names
                if provenance.get(name) != str(expected := getattr(fingerprint, name))
            ]
            for fingerprint in target.fingerprints
        ),
        key=len,
    )
    if not differences and provenance.get("format") != str(FORMAT_VERSION):
        return f"format is {provenance.get('format', 'unknown')}, expected {FORMAT_VERSION}"
    return "; ".join(differences)
