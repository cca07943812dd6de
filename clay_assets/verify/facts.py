"""What was seen of a tile: its chips in the bucket, its published files, and what kept it from having one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

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
    "missing tile": "has chips and no published file",
    "missing chips": "its file lacks chips of the bucket",
    "stale": "its file was made from other chips, or in another way than the settings say",
    "several files": "has more than one file of the version",
    "damaged": "its file cannot be read, or is not as it declares",
    "orphaned": "has a file, and no chips or no line in the manifest",
    "mixed models": "the version holds files of several models, checkpoints or levels",
    "other vectors": "chips embedded again have other vectors than its file",
}
"""Every kind of fault, with what it says of a tile."""


@dataclass(frozen=True)
class Fault:
    """Something that is wrong.

    Attributes:
        kind: One of `KINDS`.
        tile: MGRS code; "" where it is no single tile's.
        what: What was got and what was expected.
        url: Of the file; "" where it is no single file's.
    """

    kind: Kind
    tile: str
    what: str
    url: str = ""


@dataclass(frozen=True)
class FileFacts:
    """A published file by its footer.

    Attributes:
        file: As it was listed.
        rows: That the footer counts.
        made: Its provenance, by bare names; empty where the file cannot be read.
        faults: What is wrong with it by itself, a sentence each.
        unknown: URLs of rows that are no chips of the bucket; known only where every row was read.
        distinct: Chips that have rows; None where the rows were not read.
    """

    file: StoredObject
    rows: int = 0
    made: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[str] = ()
    unknown: Sequence[str] = ()
    distinct: int | None = None

    @property
    def model(self) -> str:
        """Model, level and the beginning of the checkpoint's hash."""
        made = self.made
        return f"{made.get('model')} {made.get('level')} {made.get('checkpoint_sha256', '')[:12]}"

    def count(self, name: str) -> int:
        """A number of the provenance; 0 where it says none."""
        text = self.made.get(name, "")
        return int(text) if text.isdecimal() else 0


@dataclass(frozen=True)
class TileFacts:
    """A tile of the manifest.

    Attributes:
        tile: MGRS code.
        chips: As the bucket lists them.
        inputs: What its file is to say that it was made from: one word for each precision that is accepted.
        files: Published files of the version.
        unusable: Why none of its chips can be embedded; "" if some can, or if it is unknown.
        embedded: Whether its results are complete, though there is no file.
    """

    tile: str
    chips: Sequence[StoredObject]
    inputs: frozenset[str] = frozenset()
    files: Sequence[FileFacts] = ()
    unusable: str = ""
    embedded: bool = False
