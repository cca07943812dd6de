"""What is wrong with an output, by what was seen of it. Pure: nothing is fetched here."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from clay_assets.publishing.publish import FORMAT_VERSION
from clay_assets.results.target import Target
from clay_assets.storage import StoredObject
from clay_assets.verify.facts import Fault, FileFacts, TileFacts


def judge(
    tiles: Sequence[TileFacts], orphans: Mapping[str, Sequence[StoredObject]], target: Target
) -> list[Fault]:
    """Everything that is wrong, tile by tile, then what is of the whole.

    Args:
        tiles: Of the manifest.
        orphans: Published files of tiles without chips or outside of the manifest, by tile.
        target: What the settings ask for.
    """
    faults = [fault for facts in tiles for fault in judge_tile(facts, target)]
    for tile, files in orphans.items():
        faults += [Fault("orphaned", tile, "no chips, or not in the manifest", file.url) for file in files]
    return faults + list(_mixed(tiles))


def judge_tile(facts: TileFacts, target: Target) -> Iterator[Fault]:
    """What is wrong with one tile; an empty one is an orphan's business."""
    if not facts.chips:
        return
    if not facts.files:
        if not facts.unusable:
            state = "embedded, not published" if facts.embedded else "not embedded"
            yield Fault("missing tile", facts.tile, f"{len(facts.chips):,} chips, {state}")
        return
    if len(facts.files) > 1:
        yield Fault("several files", facts.tile, f"{len(facts.files)} files of one version, expected one")
    for file in facts.files:
        yield from _judge_file(facts, file, target)


def _judge_file(facts: TileFacts, file: FileFacts, target: Target) -> Iterator[Fault]:
    tile, url = facts.tile, file.file.url
    if file.faults:
        yield Fault("damaged", tile, " ".join(file.faults), url)
    if not file.made:
        return
    other = _made_otherwise(file.made, target)
    if other:
        yield Fault("stale", tile, other, url)
        return
    listed, said = len(facts.chips), file.count("chips")
    if file.made.get("inputs") not in facts.inputs:
        if said < listed:
            yield Fault("missing chips", tile, f"made from {said:,} chips, the bucket has {listed:,}", url)
        else:
            what = f"made from {said:,} chips, the bucket has {listed:,}, or in another state or place"
            yield Fault("stale", tile, what, url)
        return
    expected = said - file.count("skipped")
    found = file.rows if file.distinct is None else file.distinct
    if found < expected:
        kind = "rows" if file.distinct is None else "chips with rows"
        yield Fault("missing chips", tile, f"{found:,} {kind}, expected {expected:,}", url)
    if file.unknown:
        what = f"{len(file.unknown):,} rows of no chip of the bucket, such as {file.unknown[0]}"
        yield Fault("stale", tile, what, url)


def _made_otherwise(made: Mapping[str, str], target: Target) -> str:
    """How a file was made otherwise than the settings say; "" where it was not."""
    names = ("model", "checkpoint_sha256", "level", "precision", "preprocessing")
    got = [made.get(name, "") for name in names]
    wanted = [[str(getattr(found, name)) for name in names] for found in target.fingerprints]
    nearest = min(wanted, key=lambda facts: sum(a != b for a, b in zip(facts, got, strict=True)))
    differ = [
        f"{name} is {is_[:12] or 'not said'}, expected {expected[:12]}"
        for name, is_, expected in zip(names, got, nearest, strict=True)
        if is_ != expected
    ]
    if not differ and made.get("format") != str(FORMAT_VERSION):
        differ = [f"format is {made.get('format', 'not said')}, expected {FORMAT_VERSION}"]
    return "; ".join(differ)


def _mixed(tiles: Sequence[TileFacts]) -> Iterator[Fault]:
    models = Counter(file.model for facts in tiles for file in facts.files if file.made)
    if len(models) > 1:
        named = ", ".join(f"{count:,} files of {model}" for model, count in models.most_common())
        yield Fault("mixed models", "", f"{named}; expected one model: publish under another CLAY_VERSION")
