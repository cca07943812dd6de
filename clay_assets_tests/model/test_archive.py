"""Files that are not a readable archive are refused, and the error identifies them."""

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clay_assets_tests.checkpoints import lightning_checkpoint, write_checkpoint
from clay_model import CheckpointError, read_checkpoint

Parts = dict[str, bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small checkpoint's file."""
    path = write_checkpoint(tmp_path_factory.mktemp("whole") / "w.ckpt", lightning_checkpoint("custom"))
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


def safetensors() -> bytes:
    """A file whose header is 128 bytes long: that number looks like the start of a pickle."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(128)
    return struct.pack("<Q", len(header)) + header.encode() + bytes(4)


def old_format() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {}}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is an empty file"),
        (b"clay-small-70MT-1100T-10E\n", r"is not a zip archive \(it begins with b'clay-sma'\)"),
        (b"\xef\xbb\xbf\n  <!DOCTYPE html><html><title>403</title></html>", "is a web page or XML document"),
        (b'<?xml version="1.0"?><Error/>', "is a web page or XML document, perhaps a download .* refused"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer, .*git lfs pull"),
        (safetensors(), "is a safetensors file"),
        (pickle.dumps({"state_dict": {}}), "is a bare pickle"),
        (old_format(), r"is a bare pickle \(the format before PyTorch 1.6"),
    ],
    ids=[
        "empty",
        "text",
        "web page",
        "XML",
        "Git LFS pointer",
        "safetensors",
        "pickle",
        "old PyTorch format",
    ],
)
def test_file_that_is_not_an_archive_is_identified(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"model.ckpt {message}.*; expected a Lightning checkpoint"):
        read_checkpoint(path)


def test_partial_download_is_identified(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="is a truncated zip archive, perhaps an interrupted download"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: {},
        lambda _: {"readme.txt": b"hello"},
        lambda parts: {name: data[:900] if name.endswith(".pkl") else data for name, data in parts.items()},
        lambda parts: {name: data for name, data in parts.items() if "/data/" not in name},
    ],
    ids=["nothing", "another archive", "pickle cut short", "no tensors"],
)
def test_archive_that_is_not_a_checkpoint_is_refused(
    path: Path, whole: bytes, damage: Callable[[Parts], Parts]
) -> None:
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in damage(parts).items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="is a zip archive that cannot be read as a checkpoint"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
def test_damage_of_any_kind_is_a_checkpoint_error(path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(2), "b": torch.ones(3)}, "hyper_parameters": {}}, buffer)
    whole, rng = buffer.getvalue(), random.Random(0)  # noqa: S311 - no secret
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 20)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


def test_compressed_archive_is_refused(path: Path, whole: bytes) -> None:
    with (
        zipfile.ZipFile(io.BytesIO(whole)) as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    with pytest.raises(CheckpointError, match=r"\d+ compressed parts .*PyTorch stores them uncompressed"):
        read_checkpoint(path)


def test_missing_file_raises_file_not_found(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*model.ckpt: expected a Lightning"):
        read_checkpoint(path)
