import warnings
from pathlib import Path

import dagster as dg
import pytest

from clay_assets.settings import DEFAULTS, Settings, SettingsError


def test_nothing_set_means_the_defaults_of_the_contract() -> None:
    settings = Settings.from_environment({})

    assert {name: settings.value(name) for name in DEFAULTS} == {
        "CLAY_CHIPS_URI": "data/chips",
        "CLAY_CHECKPOINT": "checkpoints/clay-small-70MT-1100T-10E.ckpt",
        "CLAY_OUTPUT_URI": "data/embeddings",
        "CLAY_WORK_URI": "data/work",
        "CLAY_STAC_URI": "data/stac",
        "CLAY_TILES": "tiles.txt",
        "CLAY_LEVEL": "",  # the model's own
        "CLAY_PRECISION": "auto",
        "CLAY_DEVICE": "auto",
        "CLAY_BATCH_SIZE": "auto",
        "CLAY_VERSION": "1",
        "CLAY_TILES_PER_RUN": "64",
        "CLAY_OWNERS": "",
        "CLAY_MAX_NODATA": "0.3",
        "CLAY_ALLOW_UNTRAINED": "0",
        "CLAY_REQUEST_PAYER": "0",
    }
    assert (settings.max_nodata, settings.allow_untrained) == (0.3, False)
    assert (settings.anonymous, settings.request_payer) == (False, False)
    assert (settings.manifest, settings.version, settings.tiles_per_run) == (Path("tiles.txt"), 1, 64)


def test_variable_that_is_set_goes_on_by_its_name_and_others_by_their_default() -> None:
    settings = Settings.from_environment({"CLAY_LEVEL": "patch", "CLAY_DEVICE": "", "HOME": "/root"})

    assert settings.value("CLAY_LEVEL") == "patch"
    assert settings.config("CLAY_LEVEL") == dg.EnvVar("CLAY_LEVEL")
    assert settings.config("CLAY_DEVICE") == "auto"


def test_variables_of_other_programs_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Settings.from_environment({"CLAYTON": "1", "AWS_REGION": "us-west-2"})


@pytest.mark.parametrize(
    ("value", "means"),
    [
        ("1", True),
        ("true", True),
        ("YES", True),
        ("on", True),
        ("0", False),
        ("False", False),
        ("off", False),
    ],
)
def test_switches_are_read_as_people_write_them(value: str, means: bool) -> None:
    names = ("CLAY_ALLOW_UNTRAINED", "AWS_NO_SIGN_REQUEST", "CLAY_REQUEST_PAYER")
    settings = Settings.from_environment(dict.fromkeys(names, value))

    assert (settings.allow_untrained, settings.anonymous, settings.request_payer) == (means,) * 3


def test_the_payer_may_be_named_as_the_aws_cli_names_it() -> None:
    assert Settings.from_environment({"CLAY_REQUEST_PAYER": "requester"}).request_payer


@pytest.mark.parametrize("name", ["CLAY_ALLOW_UNTRAINED", "AWS_NO_SIGN_REQUEST", "CLAY_REQUEST_PAYER"])
def test_a_switch_that_says_neither_is_refused_by_its_variable(name: str) -> None:
    settings = Settings.from_environment({name: "maybe"})

    with pytest.raises(SettingsError, match=f"{name} is 'maybe', expected 1 or 0"):
        _ = (settings.allow_untrained, settings.anonymous, settings.request_payer)


@pytest.mark.parametrize("value", ["-0.1", "1.1", "30 %", "nan", "inf"])
def test_a_share_of_no_data_that_is_none_is_refused(value: str) -> None:
    settings = Settings.from_environment({"CLAY_MAX_NODATA": value})

    with pytest.raises(SettingsError, match=f"CLAY_MAX_NODATA is {value!r}, expected a number from 0 to 1"):
        _ = settings.max_nodata


@pytest.mark.parametrize("value", ["-1", "1.5", "one", "0x1", " 1"])
@pytest.mark.parametrize("name", ["CLAY_VERSION", "CLAY_TILES_PER_RUN"])
def test_number_that_is_none_is_refused_by_its_variable(name: str, value: str) -> None:
    settings = Settings.from_environment({name: value})

    with pytest.raises(SettingsError, match=f"{name} is {value!r}, expected a whole number from 0"):
        _ = (settings.version, settings.tiles_per_run)


def test_a_checkpoint_has_one_address_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    relative, absolute = (
        Settings.from_environment({"CLAY_CHECKPOINT": str(path)}).checkpoint
        for path in ("models/clay.ckpt", tmp_path / "models" / "clay.ckpt")
    )

    assert relative == absolute == str(tmp_path / "models" / "clay.ckpt")
    on_s3 = Settings.from_environment({"CLAY_CHECKPOINT": "s3://models/clay.ckpt"})
    assert on_s3.checkpoint == "s3://models/clay.ckpt"
