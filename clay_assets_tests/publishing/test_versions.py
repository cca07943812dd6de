"""A published version holds vectors of one checkpoint and level."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clay_assets.embedding.encoders import UntrainedWeights
from clay_assets.pipeline import STEPS, Step
from clay_assets.publishing.schema import read_provenance
from clay_assets.publishing.versions import VersionMixed
from clay_assets.state import TileStores, survey
from clay_assets.storage import Store
from clay_assets_tests.embedding.scene import MeanEncoder, Scene, errors, process
from clay_assets_tests.embedding.streaming import MeanEmbedder

NAME = "{}_20200615_20200615_v{:03}.gpq".format


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Two tiles, published as version 1, and a second checkpoint."""
    made = Scene(tmp_path)
    for tile in ("27WXN", "27WXP"):
        made.put(tile, {1: 10, 2: 20})
    process(made, ["27WXN", "27WXP"])
    made.chips.take_reads()
    (tmp_path / "other").write_bytes(b"other weights")
    return made


def provenance(scene: Scene, tile: str, version: int = 1) -> dict[str, str]:
    return read_provenance(scene.root / "output" / NAME(tile, version))


@pytest.mark.parametrize("steps", [("publish",), ("inventory", "publish")])
def test_a_new_version_is_never_published_from_vectors_of_the_old_checkpoint(
    scene: Scene, steps: tuple[Step, ...]
) -> None:
    other = scene.encoder(checkpoint="other")

    outcomes = process(scene, ["27WXN"], encoder=other, steps=steps, version=2)

    assert errors(outcomes) == {"27WXN": "ResultsMissing"}
    assert scene.output_files() == [NAME("27WXN", 1), NAME("27WXP", 1)]


def test_results_of_two_checkpoints_coexist_under_two_versions(scene: Scene) -> None:
    other = scene.encoder(checkpoint="other")

    process(scene, ["27WXN", "27WXP"], encoder=other, version=2)
    read = scene.chips.take_reads()
    back = process(scene, ["27WXN", "27WXP"])

    first, second = (encoder.target().preferred for encoder in (scene.encoder(), other))
    assert provenance(scene, "27WXN", 1)["checkpoint_sha256"] == first.checkpoint_sha256
    assert provenance(scene, "27WXN", 2)["checkpoint_sha256"] == second.checkpoint_sha256
    folders = sorted(path.name for path in (scene.root / "work" / "chip_embeddings").iterdir())
    assert folders == sorted([first.folder, second.folder])
    assert read == [1, 1, 2, 2]
    assert scene.chips.take_reads() == []
    assert all(outcome.reused for outcome in back.values())


@pytest.mark.parametrize("other", ["checkpoint", "level"])
def test_publishing_next_to_files_of_another_model_is_refused_before_a_chip_is_read(
    scene: Scene, other: str
) -> None:
    encoder = scene.encoder(**({"checkpoint": "other"} if other == "checkpoint" else {"level": "patch"}))  # type: ignore[arg-type]

    with pytest.raises(VersionMixed, match=r"version 1 in .* publish under another CLAY_VERSION") as refusal:
        process(scene, ["27WXN"], encoder=encoder)

    assert refusal.value.systemic
    assert NAME("27WXP", 1) in str(refusal.value)
    assert (scene.chips.take_reads(), encoder.loads) == ([], 0)


def test_a_run_over_all_tiles_of_a_version_replaces_it(scene: Scene) -> None:
    other = scene.encoder(checkpoint="other")

    outcomes = process(scene, ["27WXN", "27WXP"], encoder=other)

    assert errors(outcomes) == {"27WXN": "", "27WXP": ""}
    expected = other.target().preferred.checkpoint_sha256
    assert {provenance(scene, tile)["checkpoint_sha256"] for tile in ("27WXN", "27WXP")} == {expected}
    assert scene.output_files() == [NAME("27WXN", 1), NAME("27WXP", 1)]


def test_vectors_that_cannot_be_published_in_a_version_can_still_be_embedded(scene: Scene) -> None:
    other = scene.encoder(checkpoint="other")

    outcomes = process(scene, ["27WXN"], encoder=other, steps=("inventory", "embed"))

    assert errors(outcomes) == {"27WXN": ""}


def test_untrained_weights_are_embedded_only_if_allowed_and_are_recorded_in_the_file(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    scene.put("27WXN", {1: 10})

    def encoder(*, allow: bool) -> MeanEncoder:
        return scene.encoder(embedder=MeanEmbedder(untrained=True), allow_untrained=allow)

    with pytest.raises(UntrainedWeights, match=r"never trained.*CLAY_ALLOW_UNTRAINED=1") as refusal:
        process(scene, ["27WXN"], encoder=encoder(allow=False))
    read = scene.chips.take_reads()
    process(scene, ["27WXN"], encoder=encoder(allow=True))

    assert refusal.value.systemic
    assert read == []
    assert provenance(scene, "27WXN")["weights"].startswith("untrained: random numbers")


def test_a_moved_folder_of_chips_embeds_nothing_again_and_files_name_the_new_location(scene: Scene) -> None:
    shutil.copytree(scene.root / "chips", scene.root / "archive" / "2020")  # with modification times
    shutil.rmtree(scene.root / "chips")
    moved = TileStores(Store(scene.root / "archive" / "2020"), scene.work, scene.output)
    encoder = scene.encoder()

    outcomes = process(scene, ["27WXN", "27WXP"], stores=moved, encoder=encoder)

    assert (errors(outcomes), encoder.loads) == ({"27WXN": "", "27WXP": ""}, 0)
    urls = pq.read_table(scene.root / "output" / NAME("27WXN", 1))["source_url"].to_pylist()
    assert len(urls) == 2
    assert all(url.startswith(f"{scene.root}/archive/2020/27WXN/2020-06-15/claytile_") for url in urls)
    states = survey(moved, ["27WXN", "27WXP"], encoder.target(), 1)
    assert [state.state for state in states] == ["current", "current"]


def set_best_precision(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `auto` choose this precision, as on another machine."""

    def resolve(choice: str, _: object) -> str:
        return precision if choice == "auto" else choice

    monkeypatch.setattr("clay_model.device.resolve_precision", resolve)


@pytest.mark.parametrize(("here", "there"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_auto_keeps_a_tiles_precision_on_other_hardware_and_uses_the_best_for_a_new_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str, there: str
) -> None:
    scene = Scene(tmp_path)
    scene.put("27WXN", {1: 10, 2: 20})
    set_best_precision(here, monkeypatch)
    process(scene, ["27WXN"], encoder=scene.encoder(precision="auto"))
    scene.chips.take_reads()

    set_best_precision(there, monkeypatch)
    scene.put("27WXN", {3: 30})
    scene.put("27WXP", {1: 40})
    (state, _) = survey(scene.stores, ["27WXN", "27WXP"], scene.encoder(precision="auto").target(), 1)
    encoder = scene.encoder(precision="auto")
    outcomes = process(scene, ["27WXN", "27WXP"], encoder=encoder)

    assert state.to_embed == 1
    assert scene.chips.take_reads() == [1, 3]
    assert [fingerprint.precision for fingerprint in encoder.requests] == [here, there]  # two streams
    made = {
        tile: outcome.results.provenance.fingerprint.precision
        for tile, outcome in outcomes.items()
        if outcome.results
    }
    assert made == {"27WXN": here, "27WXP": there}
    assert scene.values("27WXN", encoder=encoder) == {1: 10.0, 2: 20.0, 3: 30.0}
    assert provenance(scene, "27WXN")["precision"] == here
    assert provenance(scene, "27WXP")["precision"] == there


def test_an_explicit_precision_ignores_results_of_another(scene: Scene) -> None:
    encoder = scene.encoder(precision="bf16")

    process(scene, ["27WXN", "27WXP"], encoder=encoder, steps=STEPS)

    assert scene.chips.take_reads() == [1, 1, 2, 2]
    assert [fingerprint.precision for fingerprint in encoder.requests] == ["bf16"]
    assert provenance(scene, "27WXN")["precision"] == "bf16"
