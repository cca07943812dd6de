"""The whole pipeline with a real network, wired by settings: by the command line and in this process."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import dagster as dg
import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest

from clay_assets.dagster.checks import CHECKS
from clay_assets.publishing.schema import published_schema
from clay_assets.publishing.validation import validate
from clay_assets_tests.dagster.command_line import OURS, materialize, materialize_here
from clay_assets_tests.geotiffs import BAD_CHIPS, chip_bytes, chip_name, chip_pixels, good_chip
from clay_assets_tests.golden import REAL_CHIPS, GoldenChip, expected
from clay_assets_tests.s3_server import SECRET_KEY, S3Bucket, checking_credentials
from clay_model import BANDS

TILE = "27WXN"
DATE = "2020-06-15"
GOOD = 2
BAD = ("truncated", "12 bands", "256 x 256", "NaN", "no CRS", "text", "VRT")


Here = Callable[[Mapping[str, str]], dg.ExecuteInProcessResult]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Materializes the tile in this process, in `tmp_path` and with only these settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(settings: Mapping[str, str]) -> dg.ExecuteInProcessResult:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        return materialize_here(settings, TILE)

    return run


def chip_key(number: int) -> str:
    return f"{TILE}/{DATE}/{chip_name(number)}"


def write_chips(folder: Path, chips: dict[str, bytes]) -> None:
    for key, data in chips.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)


def as_geotiff(chip: GoldenChip) -> bytes:
    return chip_bytes(
        chip.pixels(),
        layout="tiles with a predictor",
        crs=f"EPSG:{chip.epsg}",
        origin=(chip.left, chip.top),
        date=chip.date.isoformat(),
        bands=BANDS,
    )


def inside_chip(number: int) -> bytes:
    """A chip inside its tile's square, whose south-west corner is at 600 and 7,200 km."""
    return chip_bytes(chip_pixels() + 50 * number, origin=(600_000 + 5_120 * number, 7_250_000))


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Mapping[str, dg.MetadataValue]]:
    """Metadata of each asset's only materialization."""
    made = [
        event.step_materialization_data.materialization
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION
    ]
    found = {one.asset_key.to_user_string(): one.metadata for one in made}
    assert len(found) == len(made)
    return found


def real_chips() -> dict[str, bytes]:
    return {f"{chip.name}/{chip.date}/{chip.file_name}": as_geotiff(chip) for chip in REAL_CHIPS}


def test_the_command_line_embeds_real_chips_on_s3_with_the_reference_vectors(
    tmp_path: Path, bucket: S3Bucket, small_checkpoint: Path
) -> None:
    for key, data in real_chips().items():
        bucket.store("chips").write(key, data)
    bucket.store().put("models/clay.ckpt", small_checkpoint)
    tiles = sorted(chip.name for chip in REAL_CHIPS)
    settings = {
        **bucket.environment,
        "CLAY_CHIPS_URI": bucket.uri("chips"),
        "CLAY_CHECKPOINT": bucket.uri("models/clay.ckpt"),
        "CLAY_OUTPUT_URI": bucket.uri("embeddings"),
        "CLAY_WORK_URI": bucket.uri("work"),
        "CLAY_PRECISION": "fp32",
        "CLAY_TILES_PER_RUN": "0",
    }

    done = materialize(tmp_path, tiles, settings, "--partition-range", f"{tiles[0]}...{tiles[-1]}")

    assert done.status == 0, done.output[-3000:]
    assert SECRET_KEY not in done.output
    assert not list(tmp_path.rglob("*.gpq")), "a published file is on this machine"
    output, files = bucket.store("embeddings"), {}
    for item in output.list():
        path = tmp_path / Path(item.url).name
        output.fetch_to(item, path)
        assert validate(path, name=path.name) == []
        files[path.name[:5]] = pq.read_table(path)
    for chip, reference in zip(REAL_CHIPS, expected()["real_small_mean"], strict=True):
        assert files[chip.name].schema.equals(published_schema((768,)))
        (vector,) = files[chip.name]["embeddings"].combine_chunks().to_numpy_ndarray()
        assert np.linalg.norm(vector - reference) <= 1e-5 * np.linalg.norm(reference)
    frame = geopandas.read_parquet(path)
    assert frame.crs == "OGC:CRS84"
    assert list(frame.columns) == ["source_url", "date", "embeddings", "geometry"]


def test_each_bad_chip_is_skipped_with_its_reason_and_the_good_ones_are_embedded(
    tmp_path: Path, tiny_checkpoint: Path, here: Here
) -> None:
    chips = {chip_key(number): good_chip() for number in range(1, GOOD + 1)}
    chips |= {chip_key(10 + number): BAD_CHIPS[kind].make() for number, kind in enumerate(BAD)}
    write_chips(tmp_path / "data" / "chips", chips)

    assert here({"CLAY_CHECKPOINT": str(tiny_checkpoint)}).success

    (path,) = (tmp_path / "data" / "work" / "chip_embeddings").glob(f"*/{TILE}.parquet")
    results = pq.read_table(path, partitioning=None)
    reasons = dict(zip(results["source_url"].to_pylist(), results["reason"].to_pylist(), strict=True))
    folder = tmp_path / "data" / "chips"
    assert reasons == {
        **{str(folder / chip_key(number)): None for number in range(1, GOOD + 1)},
        **{str(folder / chip_key(10 + number)): BAD_CHIPS[kind].reason for number, kind in enumerate(BAD)},
    }
    (published,) = (tmp_path / "data" / "embeddings").glob("*.gpq")
    urls = pq.read_table(published)["source_url"].to_pylist()
    assert urls == [str(folder / chip_key(number)) for number in range(1, GOOD + 1)]


def test_a_tile_of_clay_v15_has_a_row_for_each_window_and_passes_every_check(
    tmp_path: Path, v15_checkpoint: Path, here: Here
) -> None:
    write_chips(tmp_path / "data" / "chips", {chip_key(number): inside_chip(number) for number in (1, 2)})

    result = here({"CLAY_CHECKPOINT": str(v15_checkpoint), "CLAY_PRECISION": "fp32", "CLAY_VERSION": "2"})

    assert result.success
    metadata = metadata_of(result)
    names = ("chips", "embedded", "windows", "skipped", "model", "level", "dagster/row_count")
    assert [metadata["chip_embeddings"][name].value for name in names] == [
        *(2, 2, 8, 0),
        *("clay-v1.5-small", "cls", 8),
    ]
    assert (
        metadata["embeddings_geoparquet"]["rows"].value,
        metadata["embeddings_collection"]["tiles"].value,
    ) == (
        8,
        1,
    )
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks == dict.fromkeys((check.name for check in CHECKS), True)

    (published,) = (tmp_path / "data" / "embeddings").glob("*.gpq")
    assert published.name == f"{TILE}_20200615_20200615_v002.gpq"
    frame = geopandas.read_parquet(published)
    folder = tmp_path / "data" / "chips"
    assert frame["source_url"].to_list() == [
        str(folder / chip_key(number)) for number in (1, 2) for _ in range(4)
    ]
    assert np.stack(frame["embeddings"]).shape == (8, 384)
    corners = frame.to_crs("EPSG:32627").bounds[:4].round().astype(int)[["minx", "maxy"]]
    assert len(corners.drop_duplicates()) == 4, "each window has its own footprint"
    collection = json.loads((tmp_path / "data" / "stac" / "v002" / "collection.json").read_text())
    assert collection["emb:dimensions"] == 384


def test_a_second_run_embeds_nothing_and_does_not_rewrite_the_file(
    tmp_path: Path, tiny_checkpoint: Path, here: Here, capfd: pytest.CaptureFixture[str]
) -> None:
    write_chips(tmp_path / "data" / "chips", {chip_key(1): good_chip()})
    settings = {"CLAY_CHECKPOINT": str(tiny_checkpoint)}
    assert here(settings).success
    (published,) = (tmp_path / "data" / "embeddings").glob("*.gpq")
    written = published.stat().st_mtime_ns
    capfd.readouterr()

    assert here(settings).success

    assert "no chip had to be embedded: no network was loaded" in capfd.readouterr().err
    assert published.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("settings", "phrase"),
    [
        pytest.param({"CLAY_CHECKPOINT": "none.ckpt"}, "no checkpoint at", id="there is no checkpoint"),
        pytest.param(
            {"CLAY_CHECKPOINT": "tiles.txt"}, "expected a Lightning checkpoint", id="it is not a checkpoint"
        ),
        pytest.param({"CLAY_CHIPS_URI": "elsewhere"}, "elsewhere", id="there is no folder of chips"),
        pytest.param({"CLAY_LEVEL": "cls"}, "CLAY_LEVEL is 'cls', expected", id="a level of another model"),
        pytest.param({"CLAY_DEVICE": "cuda:99"}, "(CLAY_DEVICE, CLAY_PRECISION)", id="no such device here"),
    ],
)
def test_a_wrong_setting_fails_the_run_and_is_named(
    settings: dict[str, str],
    phrase: str,
    tmp_path: Path,
    tiny_checkpoint: Path,
    here: Here,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write_chips(tmp_path / "data" / "chips", {chip_key(1): good_chip()})

    assert not here({"CLAY_CHECKPOINT": str(tiny_checkpoint)} | settings).success

    assert phrase in capfd.readouterr().err


def test_a_tile_without_usable_chips_fails_with_the_reasons(
    tmp_path: Path, tiny_checkpoint: Path, here: Here, capfd: pytest.CaptureFixture[str]
) -> None:
    write_chips(tmp_path / "data" / "chips", {chip_key(1): b"text"})

    assert not here({"CLAY_CHECKPOINT": str(tiny_checkpoint)}).success

    assert "none of its 1 chips can be used (1 format)" in capfd.readouterr().err
    assert not list(tmp_path.rglob("*.gpq"))


def test_refused_credentials_are_explained_and_not_shown(
    bucket: S3Bucket, tiny_checkpoint: Path, here: Here, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {
        **bucket.environment,
        "AWS_ACCESS_KEY_ID": "AKIAUNKNOWNKEY000000",
        "CLAY_CHIPS_URI": bucket.uri(),
        "CLAY_CHECKPOINT": str(tiny_checkpoint),
    }

    with checking_credentials(bucket.endpoint):
        assert not here(settings).success

    log = capfd.readouterr().err
    assert "The server does not know this access key. Set AWS_ACCESS_KEY_ID" in log
    assert SECRET_KEY not in log
    assert "AKIAUNKNOWNKEY000000" not in log


def test_a_missing_bucket_is_named(
    bucket: S3Bucket, tiny_checkpoint: Path, here: Here, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {
        **bucket.environment,
        "CLAY_CHIPS_URI": "s3://no-such-bucket-anywhere/02",
        "CLAY_CHECKPOINT": str(tiny_checkpoint),
    }

    assert not here(settings).success

    log = capfd.readouterr().err
    assert "stopped at tile 27WXN" in log
    assert "no-such-bucket-anywhere" in log
    assert SECRET_KEY not in log
