"""Each wrong value of each setting is refused before anything runs: got, expected, what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

from clay_assets.cli import main
from clay_assets.dagster import build_defs
from clay_assets.settings import DEFAULTS, NO_SIGN_REQUEST, Settings, SettingsError
from clay_assets.storage import StorageError
from clay_assets.tiles.manifest import ManifestError
from clay_assets_tests.embedding.scene import Scene

ADDRESSES = ("CLAY_CHIPS_URI", "CLAY_CHECKPOINT", "CLAY_OUTPUT_URI", "CLAY_WORK_URI", "CLAY_STAC_URI")
WRONG = [
    *((name, "file:///data", "expected|A store is a folder .* got scheme file://") for name in ADDRESSES),
    *((name, "s3://", "got '' as the bucket's name; expected s3://bucket/prefix") for name in ADDRESSES),
    *((name, "s3://AKIA12345678:hush@b/x", "holds credentials.*set the variables") for name in ADDRESSES),
    ("CLAY_STAC_URI", "data/embeddings/stac", "below CLAY_OUTPUT_URI .* Name a place beside it"),
    ("CLAY_WORK_URI", "data/embeddings", "below CLAY_OUTPUT_URI .* Name a place beside it"),
    ("CLAY_TILES", "none.txt", "no tile manifest at .*: write one MGRS code a line"),
    ("CLAY_TILES", "wrong.txt", "1 lines that are no MGRS tile, such as 27WXN:\n  line 1: 'Reykjavik'"),
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
    *(("CLAY_VERSION", value, "expected a whole number from 0") for value in ("-1", "v1", "1.0", "9" * 5000)),
    *(("CLAY_TILES_PER_RUN", value, "expected a whole number from 0") for value in ("-1", "all", "6e1")),
    *(
        ("CLAY_OWNERS", value, "expected e-mail addresses or team:name")
        for value in ("me", "team:", "a@b team:eo", "@b")
    ),
    *(("CLAY_MAX_NODATA", value, "expected a number from 0 to 1") for value in ("-0.1", "30 %", "nan", "2")),
    *(
        (name, "maybe", "expected 1 or 0")
        for name in ("CLAY_ALLOW_UNTRAINED", "CLAY_REQUEST_PAYER", NO_SIGN_REQUEST)
    ),
]
"""A setting, a wrong value of it, and what the message says."""


@pytest.fixture(autouse=True)
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with manifests."""
    monkeypatch.chdir(tmp_path)
    Path("tiles.txt").write_text("27WXN\n")
    Path("wrong.txt").write_text("Reykjavik\n")


def test_every_setting_has_a_wrong_value_in_the_table() -> None:
    assert {name for name, _, _ in WRONG} == {*DEFAULTS, NO_SIGN_REQUEST}


@pytest.mark.parametrize(("name", "value", "said"), WRONG, ids=lambda text: text[:40])
def test_a_wrong_value_is_refused_when_the_definitions_load(name: str, value: str, said: str) -> None:
    with pytest.raises((SettingsError, StorageError, ManifestError), match=f"(?s){said}") as refused:
        build_defs(settings=Settings.from_environment({name: value}))
    assert "hush" not in str(refused.value)
    if isinstance(refused.value, SettingsError):
        assert str(refused.value).startswith(name)
        assert name in ADDRESSES or "unset it" in str(refused.value)


@pytest.mark.parametrize("command", ["estimate", "verify"])
@pytest.mark.parametrize(
    "name", ["CLAY_LEVEL", "CLAY_DEVICE", "CLAY_BATCH_SIZE", "CLAY_VERSION", "CLAY_OWNERS"]
)
def test_the_command_line_refuses_it_too(
    command: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "wrong")
    assert main([command]) == 2
    assert f"clay: {name} is 'wrong', expected " in capsys.readouterr().err


def test_all_wrong_values_are_named_at_once() -> None:
    wrong = dict.fromkeys(("CLAY_LEVEL", "CLAY_MAX_NODATA", "CLAY_ALLOW_UNTRAINED"), "maybe")
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({**wrong, "CLAY_CHIPS_URI": "s3://"}).check()
    assert [line.split()[0].rstrip(":") for line in str(refused.value).splitlines()] == [
        *wrong,
        "CLAY_CHIPS_URI",
    ]


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
def test_right_values_pass(values: dict[str, str]) -> None:
    build_defs(settings=Settings.from_environment(values))


def test_checking_imports_no_pytorch() -> None:
    program = (
        "import sys; from clay_assets.settings import Settings;"
        " Settings({}).check(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("value", ["0", "x", "1.5"])
def test_a_batch_size_of_a_run_s_config_is_refused_before_a_tile_is_planned(
    tmp_path: Path, value: str
) -> None:
    with pytest.raises(SettingsError, match=f"CLAY_BATCH_SIZE is '{value}', expected auto or a whole number"):
        Scene(tmp_path).encoder(batch_size=value).target()
