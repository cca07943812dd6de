"""Pieces of results: stored while a tile is embedded, merged by the run after one that was killed."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clay_assets.embedding.plan import fold_pieces
from clay_assets.embedding.progress import Progress
from clay_assets.embedding.tile import embed_planned
from clay_assets.pipeline import TileJob, TileOutcome, process_tiles
from clay_assets.results import TileResults
from clay_assets.results.pieces import PieceLimits, find_pieces, pieces_prefix
from clay_assets.state.survey import survey
from clay_assets.storage import AccessDenied, Store, StoredObject
from clay_assets.tiles.inventory import read_inventory
from clay_assets_tests.embedding.scene import TIMEOUT, MeanEncoder, Scene
from clay_assets_tests.embedding.streaming import BROKEN, number_of, within

TILE = "27WXN"


def process(
    scene: Scene, limits: PieceLimits, *, encoder: MeanEncoder | None = None, force: bool = False
) -> TileOutcome:
    """A whole run of the tile."""
    outcomes: list[TileOutcome] = []

    def work() -> None:
        job = TileJob(scene.stores, encoder or scene.encoder(), check=False, pieces=limits, force=force)
        with Progress() as progress:
            process_tiles([TILE], job, outcomes.append, progress)

    within(TIMEOUT, work)
    return outcomes[0]


def pieces_of(scene: Scene) -> list[StoredObject]:
    """The tile's pieces in the work store."""
    return list(find_pieces(scene.work).get(TILE, ()))


def leave_pieces(scene: Scene, upto: int, *, chips: int = 2, retry_skipped: bool = False) -> None:
    """Leave the pieces, and no results, of a run that is killed after `upto` chips."""
    kept = scene.root / "kept"

    class Killed(BaseException):
        pass

    def die() -> None:
        nonlocal upto
        upto -= 1
        if upto == 0:
            shutil.copytree(scene.root / "work", kept)  # a copy of the disk at this moment
            raise Killed

    plan = scene.plan(retry_skipped=retry_skipped)
    with scene.run(plan) as run, pytest.raises(Killed):
        embed_planned(plan, run, scene.work, die, PieceLimits(chips=chips))
    shutil.rmtree(scene.root / "work")
    kept.rename(scene.root / "work")


def fold(scene: Scene) -> None:
    """Merge the pieces."""
    target = scene.encoder().target()
    fold_pieces(scene.work, TILE, read_inventory(scene.work, TILE), target, pieces_of(scene))


def test_a_killed_run_loses_at_most_one_piece_and_the_next_publishes_the_same_bytes(
    scene: Scene, tmp_path: Path
) -> None:
    level = "group"
    scene.put(TILE, {number: number for number in range(1, 25)} | {7: BROKEN})
    command = [sys.executable, "-m", "clay_assets_tests.embedding.killed_run"]
    command += [str(tmp_path), level, "0.3", "4"]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as run:
        deadline = time.monotonic() + TIMEOUT
        while len(pieces_of(scene)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    saved = 4 * len(pieces_of(scene))
    assert 8 <= saved < 24

    scene.chips.take_reads()
    encoder = scene.encoder(level=level)
    outcome = process(scene, PieceLimits(), encoder=encoder)

    assert outcome.error is None
    assert scene.chips.take_reads() == list(range(saved + 1, 25))
    assert pieces_of(scene) == []
    (tmp_path / "undisturbed").mkdir()
    undisturbed = Scene(tmp_path / "undisturbed")
    undisturbed.chips = scene.chips
    process(undisturbed, PieceLimits(), encoder=undisturbed.encoder(level=level))
    (name,) = undisturbed.output_files()
    assert scene.output_files() == [name]
    assert scene.output.read(name) == undisturbed.output.read(name)


def test_a_piece_with_all_chips_of_its_tile_is_incomplete_results(scene: Scene) -> None:
    scene.put(TILE, {1: 5, 2: 5})
    leave_pieces(scene, 2, chips=2)
    (piece,) = pieces_of(scene)
    results = TileResults.open(scene.work, TILE, scene.encoder().target().preferred, piece)
    assert results is not None
    with results:
        assert (results.header.summary.embedded, results.header.remaining) == (2, 1)


def test_a_tile_that_ends_before_the_first_limit_stores_no_piece(scene: Scene) -> None:
    scene.put(TILE, dict.fromkeys(range(1, 6), 5))
    seen: list[str] = []
    record_puts(scene, seen)
    process(scene, PieceLimits(chips=6))
    assert [key for key in seen if key.startswith("chip_pieces/")] == []


def test_a_piece_is_stored_at_each_limit_and_removed_at_the_end_of_the_tile(scene: Scene) -> None:
    scene.put(TILE, dict.fromkeys(range(1, 6), 5))
    seen: list[str] = []
    record_puts(scene, seen)
    process(scene, PieceLimits(chips=2))
    folder = pieces_prefix(TILE, scene.encoder().target().preferred)
    assert [key for key in seen if key.startswith("chip_pieces/")] == [
        f"{folder}0001.parquet",
        f"{folder}0002.parquet",
    ]
    assert pieces_of(scene) == []


def test_a_slow_tile_stores_a_piece_at_the_time_limit(scene: Scene) -> None:
    scene.put(TILE, dict.fromkeys(range(1, 6), 5))
    seen: list[str] = []
    record_puts(scene, seen)
    process(scene, PieceLimits(seconds=0))
    assert len([key for key in seen if key.startswith("chip_pieces/")]) == 5


def test_pieces_are_removed_once_partial_results_are_stored(scene: Scene) -> None:
    scene.put(TILE, dict.fromkeys(range(1, 8), 5))

    scene.break_at(7, ValueError)
    outcome = process(scene, PieceLimits(chips=2))
    assert isinstance(outcome.error, ValueError)
    assert pieces_of(scene) == []
    assert sorted(scene.values()) == [1, 2, 3, 4, 5, 6]


def test_folding_merges_pieces_with_earlier_results(scene: Scene) -> None:
    scene.put(TILE, {1: 11, 2: 12})
    scene.embed()
    scene.put(TILE, {3: 13, 4: 14, 5: BROKEN, 6: 16})
    leave_pieces(scene, upto=3)  # chips 3 and 4 are in a piece
    fold(scene)
    assert scene.values() == {1: 11, 2: 12, 3: 13, 4: 14}
    with scene.results() as results:
        assert (results.header.remaining, results.header.summary.embedded) == (2, 4)
    assert pieces_of(scene) == []


def test_a_piece_takes_precedence_over_earlier_results(scene: Scene) -> None:
    scene.put(TILE, {1: BROKEN, 2: 12, 3: 13})
    scene.embed()
    with scene.results() as results:
        assert len(results.chips()) == 3
    scene.put(TILE, {1: 11})  # now a chip
    leave_pieces(scene, upto=1, chips=1)
    fold(scene)
    assert scene.values() == {1: 11, 2: 12, 3: 13}
    with scene.results() as results:
        assert len(results.chips()) == 3


def test_a_piece_takes_precedence_over_an_earlier_skip_of_the_same_chip(scene: Scene) -> None:
    scene.put(TILE, {1: 11, 2: 12})

    def deny(chip: StoredObject) -> None:
        if number_of(chip) == 1:
            raise AccessDenied(f"{chip.url}: these credentials may not read it")

    scene.chips.before = deny
    scene.embed()
    assert scene.values() == {1: "unreadable", 2: 12}
    scene.chips.before = lambda _: None
    leave_pieces(scene, upto=1, chips=1, retry_skipped=True)
    fold(scene)
    assert scene.values() == {1: 11, 2: 12}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "is not used"),
        (lambda _: b"", "is not used"),
        (lambda data: data.replace(b'"level": "mean"', b'"level": "wean"'), "another fingerprint"),
        (lambda data: data.replace(b"clay:making", b"clay:mating"), "is not used"),
    ],
    ids=["cut short", "empty", "of another fingerprint", "of another program"],
)
def test_an_unusable_piece_is_ignored_with_a_warning(
    scene: Scene, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes], message: str
) -> None:
    scene.put(TILE, {number: 10 + number for number in range(1, 7)})
    leave_pieces(scene, upto=5)
    first, _ = pieces_of(scene)
    key = first.url.removeprefix(f"{scene.work.uri}/")
    scene.work.write(key, damage(scene.work.read(first)))
    with caplog.at_level(logging.WARNING):
        fold(scene)
    assert message in caplog.text
    assert first.url in caplog.text
    assert scene.values() == {3: 13, 4: 14}
    assert pieces_of(scene) == []


def test_a_piece_copied_from_another_tile_is_ignored(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.put(TILE, {1: 11, 2: 12, 3: 13})
    leave_pieces(scene, upto=3)
    (piece,) = pieces_of(scene)
    scene.put("27WXP", {1: 11, 2: 12})
    target = scene.encoder().target()
    scene.work.write(f"{pieces_prefix('27WXP', target.preferred)}0001.parquet", scene.work.read(piece))
    copied = find_pieces(scene.work)["27WXP"]
    fold_pieces(scene.work, "27WXP", read_inventory(scene.work, "27WXP"), target, copied)
    assert "got results of tile 27WXN, expected those of 27WXP" in caplog.text
    assert target.results(scene.work, "27WXP") is None


def test_a_piece_with_damaged_vectors_is_ignored_and_the_others_are_kept(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.put(TILE, {number: 10 + number for number in range(1, 7)})
    leave_pieces(scene, upto=5)
    first, _ = pieces_of(scene)
    path = Path(first.url)
    group = pq.read_metadata(path).row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    start = next(chunk.data_page_offset for chunk in chunks if chunk.path_in_schema.startswith("embeddings"))
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"\xff" * 20 + data[start + 20 :])
    fold(scene)
    assert "are embedded again" in caplog.text
    assert scene.values() == {3: 13, 4: 14}


def test_pieces_of_other_settings_are_kept(scene: Scene) -> None:
    scene.put(TILE, {1: 11, 2: 12, 3: 13})
    leave_pieces(scene, upto=3)
    (piece,) = pieces_of(scene)
    process(scene, PieceLimits(), encoder=scene.encoder(level="group"))
    assert pieces_of(scene) == [piece]


def test_force_ignores_and_removes_pieces(scene: Scene) -> None:
    scene.put(TILE, {1: 11, 2: 12, 3: 13})
    leave_pieces(scene, upto=3)
    scene.chips.take_reads()
    process(scene, PieceLimits(), force=True)
    assert scene.chips.take_reads() == [1, 2, 3]
    assert pieces_of(scene) == []


def test_a_survey_reports_a_tile_with_only_pieces_as_new(scene: Scene) -> None:
    scene.put(TILE, {1: 11, 2: 12, 3: 13})
    leave_pieces(scene, upto=3)
    (state,) = survey(scene.stores, [TILE], scene.encoder().target(), version=1)
    assert (state.state, state.to_embed) == ("new", 3)


def test_a_run_lists_the_pieces_of_all_its_tiles_once(scene: Scene) -> None:
    scene.put(TILE, {1: 11})
    scene.put("27WXP", {1: 11})
    listed: list[str] = []

    class Listed(Store):
        def list(self, prefix: str = "") -> list[StoredObject]:
            listed.append(prefix)
            return super().list(prefix)

    scene.work = Listed(scene.root / "work")
    job = TileJob(scene.stores, scene.encoder(), check=False)
    with Progress() as progress:
        process_tiles([TILE, "27WXP"], job, lambda _: None, progress)
    assert listed == ["chip_pieces/"]


def record_puts(scene: Scene, seen: list[str]) -> None:
    """Record what is put into the work store."""

    class Recorded(Store):
        def put(self, target: str, path: object) -> None:
            seen.append(target)
            super().put(target, path)  # type: ignore[arg-type]

    scene.work = Recorded(scene.root / "work")
