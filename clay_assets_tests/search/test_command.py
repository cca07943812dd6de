"""`clay similar` on chips that can be read, and on one that cannot."""

import io
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
from PIL import Image

from clay_assets import similar
from clay_assets.chips import read_chip
from clay_assets.cli import main
from clay_assets.publishing.writer import write_geoparquet
from clay_assets.search.examples import Query
from clay_assets.search.picture import CAPTION, GAP, SIDE, caption, picture_of, true_colour
from clay_assets.search.similar import search
from clay_assets_tests.geotiffs import chip_bytes, chip_pixels
from clay_assets_tests.publishing.geoparquet_rows import with_column
from clay_assets_tests.reading.collection import (
    CHIPS,
    DAYS,
    PROVENANCE,
    chip_url,
    rows,
    squares,
    write_collection,
)
from clay_assets_tests.s3_server import S3Bucket, client
from clay_model.spec import BANDS, V15

A = chip_url("27WXM", DAYS[0], 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("command") / "embeddings")


def test_table_has_a_line_for_each_chip_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["similar", "--to", A, "-k", "3", "--where", str(folder)]) == 0

    head, *lines = capsys.readouterr().out.splitlines()
    found = similar(folder, to=A, k=3)
    assert head.split() == ["similarity", "date", "lon", "lat", "source_url"]
    assert [line.split()[-1] for line in lines] == found["source_url"].tolist()
    assert [line.split()[0] for line in lines] == [f"{value:.4f}" for value in found["similarity"]]
    middles = [outline.centroid.x for outline in found.geometry]
    assert [float(line.split()[2]) for line in lines] == pytest.approx(middles, abs=1e-4)


def test_negative_longitude_is_not_parsed_as_an_option_and_where_defaults_to_the_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLAY_OUTPUT_URI", str(folder))

    assert main(["similar", "--at", "-18.7,65.02", "--not", A, "-k", "2"]) == 0

    assert len(capsys.readouterr().out.splitlines()) == 3


def test_found_chips_are_written_as_geoparquet(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "found.parquet"

    assert main(["similar", "--to", A, "-k", "4", "--where", str(folder), "--output", str(output)]) == 0

    frame = geopandas.read_parquet(output)
    expected = similar(folder, to=A, k=4)
    assert frame["source_url"].tolist() == expected["source_url"].tolist()
    np.testing.assert_array_equal(frame["similarity"], expected["similarity"])
    assert frame.crs.to_authority() == ("OGC", "CRS84")
    assert len(geopandas.read_parquet(output, bbox=(100, 0, 101, 1))) == 0


def test_picture_shows_chips_in_true_colour_and_names_the_unreadable_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = rows("27WXN", 1, days=DAYS[:1]).combine_chunks().to_batches()[0]
    chips = tmp_path / "chips"
    chips.mkdir()
    names = [url.rpartition("/")[2] for url in batch["source_url"].to_pylist()]
    for name in names[: CHIPS - 1]:
        (chips / name).write_bytes(chip_bytes())
    urls = [str(chips / name) for name in names]
    batch = with_column(batch, "source_url", pa.array(urls))
    write_geoparquet(tmp_path / "27WXN_20200615_20200615_v001.gpq", [batch], (48,), PROVENANCE)
    picture = tmp_path / "out.png"

    done = main(
        ["similar", "--to", names[0], "-k", "11", "--where", str(tmp_path), "--picture", str(picture)]
    )

    assert done == 0
    assert f"not in the picture: {urls[-1]}" in capsys.readouterr().err
    image = np.asarray(Image.open(picture))
    assert image.shape == (GAP + 4 * (SIDE + CAPTION + GAP), GAP + 5 * (SIDE + GAP), 3)
    np.testing.assert_array_equal(
        image[GAP : GAP + SIDE, GAP : GAP + SIDE], true_colour(chip_pixels(), BANDS)
    )
    assert (image[GAP + SIDE :, GAP : GAP + SIDE] < 128).any()  # the caption


def test_picture_reads_chips_without_credentials_if_the_settings_say_so(
    tmp_path: Path, bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = rows("27WXN", 1, days=DAYS[:1]).combine_chunks().to_batches()[0].slice(0, 2)
    names = [url.rpartition("/")[2] for url in batch["source_url"].to_pylist()]
    for name in names:
        client(bucket.endpoint).put_object(
            Bucket=bucket.name, Key=f"chips/{name}", Body=chip_bytes(), ACL="public-read"
        )
    batch = with_column(batch, "source_url", pa.array([bucket.uri(f"chips/{name}") for name in names]))
    write_geoparquet(tmp_path / "27WXN_20200615_20200615_v001.gpq", [batch], (48,), PROVENANCE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "1")

    where, picture = str(tmp_path), str(tmp_path / "out.png")
    assert main(["similar", "--to", names[0], "-k", "1", "--where", where, "--picture", picture]) == 0

    assert "not in the picture" not in capsys.readouterr().err


def test_picture_of_a_window_shows_that_part_of_the_chip(tmp_path: Path) -> None:
    name = "claytile_27WXM_20200615_v02_0001.tif"
    (tmp_path / name).write_bytes(chip_bytes())
    chip = read_chip(chip_bytes(), name, spec=V15)
    outlines = shapely.from_wkb([window.footprint for window in chip.windows])
    days = [DAYS[0]] * 4
    frame = geopandas.GeoDataFrame(
        {"source_url": [str(tmp_path / name)] * 4, "date": days, "similarity": [0.9, 0.8, 0.7, 0.6]},
        geometry=outlines,
        crs="OGC:CRS84",
    )
    frame.attrs["clay"] = {"model": "clay-v1.5-large"}

    picture, missing = picture_of(frame, frame.drop(columns="similarity").assign(wanted=True).head(1))

    assert missing == []
    image = np.asarray(Image.open(io.BytesIO(picture)))
    top = GAP + SIDE + CAPTION + GAP
    for index, part in enumerate([np.s_[:, :256, :256], np.s_[:, :256, 256:], np.s_[:, 256:, :256]]):
        left = GAP + index * (SIDE + GAP)
        expected = true_colour(chip.pixels[part], V15.bands)
        np.testing.assert_array_equal(image[top : top + SIDE, left : left + SIDE], expected)


def test_captions_distinguish_examples_from_rows_found(folder: Path) -> None:
    found, examples = search(folder, Query(to=[A], unlike=[chip_url("27WXN", DAYS[1], 7)]), k=1)

    captions = [caption(row) for frame in (examples, found) for row in frame.itertuples()]

    middle = squares("27WXM")[2].centroid
    assert captions[0] == f"{middle.y:.3f}° N {-middle.x:.3f}° W\n2020-06-15  example"
    assert captions[1].endswith("2021-07-03  to avoid")
    assert captions[2].endswith(f"  {found['similarity'][0]:.3f}")


def test_true_colour_is_red_green_blue_under_a_square_root() -> None:
    pixels = np.zeros((13, 512, 512), dtype=np.float32)
    pixels[2], pixels[1], pixels[0] = 3000, 750, 0  # B04, B03, B02

    assert true_colour(pixels, BANDS).getpixel((7, 5)) == (255, 127, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "nothing.tif"], "no embedding of nothing.tif"),
        ([], "got no example"),
        (["--to", A, "-k", "0"], "expected 1 or more"),
    ],
)
def test_failed_search_prints_its_reason(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["similar", *arguments, "--where", str(folder)]) == 2

    assert message in capsys.readouterr().err
