"""Tiles embedded with small checkpoints of both models: refusals, names, content of the published file."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clay_assets import embed_tile
from clay_assets.chips import read_chip
from clay_assets.embedding.encoders import EncoderSettings, UntrainedWeights
from clay_assets.publishing.schema import read_provenance
from clay_assets.publishing.validation import validate
from clay_assets.storage import Store
from clay_assets_tests.checkpoints import lightning_checkpoint, lightning_checkpoint_v15, write_checkpoint
from clay_assets_tests.embedding.scene import Scene, process
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels
from clay_model import load_encoder

TILE = "27WXN"
CORNER = (600_000, 7_300_000)
"""North-west corner of the tile, metres of UTM zone 27."""


def chip(number: int) -> bytes:
    """A chip inside the tile; chips of other numbers differ."""
    origin = (CORNER[0] + 5_120 * number, CORNER[1] - 5_120)
    return chip_bytes(chip_pixels("uint8") + np.uint8(10 * number), origin=origin)


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    store = Store(tmp_path / "chips")
    for number in (1, 2, 3):
        store.write(f"{TILE}/2020-06-15/{chip_name(number)}", chip(number))
    return tmp_path / "chips"


def test_untrained_weights_are_refused_unless_allowed(
    tmp_path: Path, chips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_checkpoint(tmp_path / "demo.ckpt", lightning_checkpoint("custom", untrained=True))

    def embed(*, allow: bool) -> str:
        return embed_tile(
            TILE,
            chips=chips,
            checkpoint=path,
            output=tmp_path / "output",
            work=tmp_path / "work",
            device="cpu",
            allow_untrained=allow,
        ).url

    with pytest.raises(UntrainedWeights, match=r"demo\.ckpt holds weights that were never trained"):
        embed(allow=False)
    assert not (tmp_path / "output").exists()
    assert read_provenance(embed(allow=True))["weights"].startswith("untrained")


@pytest.mark.parametrize("model", ["clay-v0-custom-16x1", "clay-v1.5-custom-64x2"])
@pytest.mark.usefixtures("chips")
def test_a_checkpoint_of_an_unnamed_size_embeds_a_valid_file(
    tmp_path: Path, scene: Scene, model: str
) -> None:
    v15 = "v1.5" in model
    content = lightning_checkpoint_v15("custom") if v15 else lightning_checkpoint("custom")
    path = write_checkpoint(tmp_path / "clay.ckpt", content)
    encoder = EncoderSettings(Store(path), precision="fp32", device="cpu", cache=tmp_path / "cache")

    (outcome,) = process(scene, [TILE], encoder=encoder, check=True).values()

    assert outcome.error is None
    assert {part: (report.faults, report.missing) for part, report in outcome.reports.items()} == {
        part: ({}, "") for part in ("inventory", "results", "file")
    }
    shapes = outcome.reports["results"].numbers["vectors_finite_and_of_the_right_width"]["shapes"]
    assert shapes == ("64" if v15 else "16")
    assert outcome.published is not None
    file = Path(outcome.published.url)
    assert validate(file, name=file.name) == []
    provenance = read_provenance(file)
    assert (provenance["model"], provenance["level"], provenance["device"]) == (
        model,
        "cls" if v15 else "mean",
        "cpu",
    )
    table = pq.read_table(file)
    assert len(table) == (12 if v15 else 3)
    if not v15:
        read = [read_chip(chip(number), chip_name(number)) for number in (1, 2, 3)]
        expected = load_encoder(path, "cpu", "fp32").embed(
            np.stack([one.pixels for one in read]),
            lonlat=[one.windows[0].lonlat for one in read],
            dates=[one.date for one in read],
        )
        got = table["embeddings"].combine_chunks().to_numpy_ndarray()
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
