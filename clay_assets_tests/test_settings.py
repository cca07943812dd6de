"""Defaults, accepted and refused values of each setting; that docs/settings.md and Dagster show the same."""

import subprocess
import sys
import warnings
from pathlib import Path

import dagster as dg
import pytest

from clay_assets.cli import main
from clay_assets.dagster import ClayEncoder, build_defs
from clay_assets.settings import ENCODER_FIELDS, VARIABLES, Settings, SettingsError, default_text
from clay_assets.tiles.manifest import ManifestError
from clay_assets_tests.embedding.scene import Scene

SWITCHES = ("CLAY_ALLOW_UNTRAINED", "CLAY_REQUEST_PAYER", "AWS_NO_SIGN_REQUEST")
ADDRESSES = ("CLAY_CHIPS_URI", "CLAY_CHECKPOINT", "CLAY_OUTPUT_URI", "CLAY_WORK_URI", "CLAY_STAC_URI")
WRONG = [
    *((name, "file:///data", "A store is a folder .* got scheme file://") for name in ADDRESSES),
    *((name, "s3://", "got '' as the bucket's name; expected s3://bucket/prefix") for name in ADDRESSES),
    *((name, "s3://AKIA12345678:hu/sh@b/x", "holds credentials.*set the variables") for name in ADDRESSES),
    ("CLAY_STAC_URI", "data/embeddings/stac", "below CLAY_OUTPUT_URI .* Choose a location outside of it"),
    ("CLAY_WORK_URI", "data/embeddings", "below CLAY_OUTPUT_URI .* Choose a location outside of it"),
    ("CLAY_TILES", "none.txt", "no tile manifest at .*: write one MGRS code per line.*clay tiles"),
    ("CLAY_TILES", "wrong.txt", "1 lines that are not tiles such as 27WXN:\n  line 1: 'Reykjavik'"),
    ("CLAY_TILES", ".", "cannot be read as a text file of tiles"),
    *(
        ("CLAY_LEVEL", value, "expected one of mean, patch, group, cls, or nothing")
        for value in ("median", "MEAN", "mean ", "mean,patch")
    ),
    *(("CLAY_PRECISION", value, "expected auto, fp32 or bf16") for value in ("fp16", "float32", "FP32", "8")),
    *(
        ("CLAY_DEVICE", value, "expected auto, free, cpu, cuda or cuda:N")
        for value in ("gpu", "cuda:", "cuda:x", "cuda:-1", "cuda;cpu", "0", "cuda:0,")
    ),
    *(
        ("CLAY_BATCH_SIZE", value, "expected auto or a whole number from 1")
        for value in ("0", "-1", "1.5", "many", "00")
    ),
    *(
        (name, value, "expected a whole number from 0")
        for name in ("CLAY_VERSION", "CLAY_TILES_PER_RUN")
        for value in ("-1", "v1", "1.0", "6e1", "0x1", " 1", "9" * 5000)
    ),
    *(
        ("CLAY_OWNERS", value, "expected e-mail addresses or team:name")
        for value in ("me", "team:", "a@b team:eo", "@b")
    ),
    *(
        ("CLAY_MAX_NODATA", value, "expected a number from 0 to 1")
        for value in ("-0.1", "1.1", "30 %", "nan", "inf", " ", "none")
    ),
    *((name, "maybe", "expected 1 or 0") for name in SWITCHES),
]
"""A setting, an invalid value, and a pattern of the message."""


@pytest.fixture(autouse=True)
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with manifests."""
    monkeypatch.chdir(tmp_path)
    Path("tiles.txt").write_text("27WXN\n")
    Path("wrong.txt").write_text("Reykjavik\n")


def test_the_documentation_has_a_row_for_each_setting() -> None:
    text = (Path(__file__).parents[1] / "docs" / "settings.md").read_text()
    rows = [f"| {name} | {default_text(field)} | {field.description} |" for name, field in VARIABLES.items()]
    assert "\n".join(rows).replace("|  |", "| |") in text


def test_the_resource_has_the_defaults_and_descriptions_of_the_settings() -> None:
    for name in ENCODER_FIELDS:
        ours, theirs = Settings.model_fields[name], ClayEncoder.model_fields[name]
        assert (ours.default, ours.description) == (theirs.default, theirs.description)


def test_a_variable_that_is_set_reaches_a_resource_by_its_name_and_others_by_their_default() -> None:
    settings = Settings.from_environment({"CLAY_LEVEL": "patch", "CLAY_DEVICE": "", "CLAY_MAX_NODATA": "0.5"})

    assert settings.config("level") == dg.EnvVar("CLAY_LEVEL")
    assert settings.config("device") == "auto"
    assert settings.config("max_nodata") == 0.5


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("3e-1", 0.3),
        ("1e-3", 0.001),
        ("0.", 0),
        ("1.", 1),
        ("+0.3", 0.3),
        (" 0.3 ", 0.3),
        (".5", 0.5),
        ("1", 1),
    ],
)
def test_a_share_is_any_number_from_0_to_1(text: str, share: float) -> None:
    assert Settings.from_environment({"CLAY_MAX_NODATA": text}).config("max_nodata") == share


def test_unknown_variables_are_warned_of_only_if_they_begin_with_clay() -> None:
    with pytest.warns(UserWarning, match="unknown settings: CLAY_TILE; expected .*CLAY_TILES"):
        Settings.from_environment({"CLAY_TILE": "tiles.txt"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Settings.from_environment({"CLAYTON": "1", "AWS_REGION": "us-west-2", "CLAY_TILE": ""})


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
def test_switches_accept_the_usual_spellings(value: str, means: bool) -> None:
    settings = Settings.from_environment(dict.fromkeys(SWITCHES, value))

    assert (settings.allow_untrained, settings.anonymous, settings.request_payer) == (means,) * 3
    assert Settings.from_environment({"CLAY_REQUEST_PAYER": "requester"}).request_payer  # as in the AWS CLI


def test_every_setting_has_a_wrong_value_in_the_table() -> None:
    assert {name for name, _, _ in WRONG} == set(VARIABLES)


@pytest.mark.parametrize(("name", "value", "phrase"), WRONG, ids=lambda text: text[:40])
def test_a_wrong_value_is_refused_when_the_definitions_load(name: str, value: str, phrase: str) -> None:
    with pytest.raises((SettingsError, ManifestError), match=f"(?s){phrase}") as refused:
        build_defs(settings=Settings.from_environment({name: value}))
    assert "sh@" not in str(refused.value)
    assert refused.value.__context__ is None or name == "CLAY_TILES", "pydantic's error repeats the value"
    if isinstance(refused.value, SettingsError):
        assert str(refused.value).startswith(name)
        assert name in ADDRESSES or "unset it" in str(refused.value)


def test_defaults_below_the_published_files_are_refused_together_with_other_values() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({"CLAY_OUTPUT_URI": "data", "CLAY_LEVEL": "maybe"})
    words = [line.split()[0] for line in str(refused.value).splitlines()]
    assert words == ["CLAY_WORK_URI:", "CLAY_STAC_URI:", "CLAY_LEVEL"]


@pytest.mark.parametrize("command", ["tiles .", "estimate", "verify"])
def test_the_command_line_names_all_wrong_values_at_once(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CLAY_LEVEL", "CLAY_MAX_NODATA", "CLAY_OWNERS"):
        monkeypatch.setenv(name, "maybe")
    monkeypatch.setenv("CLAY_CHIPS_URI", "s3://")
    assert main(command.split()) == 2
    words = [line.removeprefix("clay: ").split()[0] for line in capsys.readouterr().err.splitlines()]
    assert words == ["CLAY_CHIPS_URI:", "CLAY_LEVEL", "CLAY_MAX_NODATA", "CLAY_OWNERS"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {
            "CLAY_LEVEL": "cls",
            "CLAY_PRECISION": "bf16",
            "CLAY_DEVICE": "cuda:0,cuda:1",
            "CLAY_BATCH_SIZE": "8",
        },
        {"CLAY_DEVICE": "free", "CLAY_OWNERS": "team:eo, someone@example.org,", "CLAY_VERSION": "012"},
        {"CLAY_DEVICE": "cpu", "CLAY_OUTPUT_URI": "s3://bucket/out", "CLAY_WORK_URI": "s3://bucket/outwork"},
    ],
)
def test_valid_values_are_accepted(values: dict[str, str]) -> None:
    build_defs(settings=Settings.from_environment(values))


def test_a_checkpoint_has_one_code_version_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(checkpoint: str) -> str | None:
        settings = Settings.from_environment(
            {"CLAY_CHECKPOINT": checkpoint, "CLAY_TILES": str(tmp_path / "tiles.txt")}
        )
        graph = build_defs(settings=settings).resolve_asset_graph()
        return graph.get(dg.AssetKey("chip_embeddings")).code_version

    (tmp_path / "models").mkdir()
    relative = version("models/clay.ckpt")
    monkeypatch.chdir(tmp_path / "models")
    assert version("clay.ckpt") == version(str(tmp_path / "models" / "clay.ckpt")) == relative
    assert str(version("s3://models/clay.ckpt")).startswith("s3://models/clay.ckpt ")


def test_reading_settings_imports_neither_pytorch_nor_dagster() -> None:
    program = (
        "import sys; from clay_assets.settings import Settings; Settings.from_environment();"
        " print({'torch', 'dagster', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("value", ["0", "x", "1.5"])
def test_an_invalid_batch_size_is_refused_before_a_tile_is_planned(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match=f"CLAY_BATCH_SIZE is '{value}', expected auto or a whole number"):
        Scene(tmp_path).encoder(batch_size=value).target()
