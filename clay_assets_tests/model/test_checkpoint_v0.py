import io
import json
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clay_assets_tests.checkpoints import encoder_state, lightning_checkpoint, write_checkpoint
from clay_assets_tests.recipe import GROUP_BANDS
from clay_model import SIZES, CheckpointError, Dimensions, read_checkpoint
from clay_model.encoder import Encoder
from clay_model.v0.checkpoint import FORMAT
from clay_model.v0.encoder import Encoder as EncoderV0

PREFIX = "model.encoder."
QKV = f"{PREFIX}transformer.layers.0.0.to_qkv.weight"

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    """A `tiny` checkpoint's content, to be changed."""
    return lightning_checkpoint("tiny")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


def weights_by_their_names(encoder: Encoder) -> dict[str, Tensor]:
    """The encoder's parameters under the names that they have in a checkpoint."""
    ours = encoder.state_dict()
    return {PREFIX + theirs: ours[name] for theirs, name in FORMAT.names(encoder.dimensions).items()}


def assert_holds(encoder: Encoder, state: dict[str, Tensor]) -> None:
    got = weights_by_their_names(encoder)
    assert got.keys() == state.keys()
    assert not [name for name in state if not torch.equal(got[name], state[name])]


# What can be read


def test_lightning_checkpoint_gives_its_weights_and_size(tiny_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(tiny_checkpoint)
    assert checkpoint.model_size == "tiny"
    assert checkpoint.encoder.dimensions == SIZES["tiny"]
    assert not checkpoint.untrained
    assert not checkpoint.encoder.training
    assert not any(parameter.requires_grad for parameter in checkpoint.encoder.parameters())
    assert_holds(checkpoint.encoder, encoder_state("tiny"))


def test_path_may_be_text(tiny_checkpoint: Path) -> None:
    assert read_checkpoint(str(tiny_checkpoint)).model_size == "tiny"


def test_checkpoint_without_decoder_is_enough(path: Path, content: Content) -> None:
    content["state_dict"] = encoder_state("tiny")
    assert_holds(read_checkpoint(write_checkpoint(path, content)).encoder, encoder_state("tiny"))


def test_checkpoint_that_says_it_is_untrained_is_known_as_such(path: Path, content: Content) -> None:
    content["hyper_parameters"]["untrained"] = True
    assert read_checkpoint(write_checkpoint(path, content)).untrained


@pytest.mark.parametrize("settings", [None, {}, {"lr": 1e-4}], ids=["left out", "empty", "without size"])
def test_size_comes_from_shapes_where_hyper_parameters_do_not_say(
    path: Path, content: Content, settings: dict[str, float] | None
) -> None:
    del content["hyper_parameters"]
    if settings is not None:
        content["hyper_parameters"] = settings
    checkpoint = read_checkpoint(write_checkpoint(path, content))
    assert checkpoint.model_size == "tiny"
    assert checkpoint.encoder.dimensions == SIZES["tiny"]


def test_size_without_a_name_comes_from_shapes(path: Path) -> None:
    dimensions = Dimensions(dim=64, depth=2, heads=3, mlp_ratio=1)  # heads wider than a token, as in `large`
    state = {
        name: torch.randn(tensor.shape)
        for name, tensor in weights_by_their_names(EncoderV0(dimensions)).items()
    }
    checkpoint = read_checkpoint(write_checkpoint(path, {"state_dict": state}))
    assert checkpoint.model_size == "custom-64x2"
    assert checkpoint.encoder.dimensions == dimensions
    assert_holds(checkpoint.encoder, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_float_type_become_float32(
    path: Path, content: Content, dtype: torch.dtype
) -> None:
    state = {name: tensor.to(dtype) for name, tensor in encoder_state("tiny").items()}
    encoder = read_checkpoint(write_checkpoint(path, content | {"state_dict": state})).encoder
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert_holds(encoder, {name: tensor.float() for name, tensor in state.items()})


def test_weights_that_lie_transposed_in_the_file_become_contiguous(path: Path, content: Content) -> None:
    content["state_dict"][QKV] = content["state_dict"][QKV].T.contiguous().T
    encoder = read_checkpoint(write_checkpoint(path, content)).encoder
    assert all(parameter.is_contiguous() for parameter in encoder.parameters())
    assert_holds(encoder, encoder_state("tiny"))


def test_file_overwritten_after_loading_changes_nothing(path: Path, tiny_checkpoint: Path) -> None:
    shutil.copy(tiny_checkpoint, path)
    encoder = read_checkpoint(path).encoder
    path.write_bytes(bytes(path.stat().st_size))
    assert_holds(encoder, encoder_state("tiny"))


def test_loading_leaves_the_random_numbers_to_come_as_they_were(tiny_checkpoint: Path) -> None:
    before = torch.get_rng_state()
    read_checkpoint(tiny_checkpoint)
    assert torch.equal(torch.get_rng_state(), before)


def test_constants_are_those_of_an_encoder_built_without_checkpoint(tiny_checkpoint: Path) -> None:
    loaded = dict(read_checkpoint(tiny_checkpoint).encoder.named_buffers())
    built = dict(EncoderV0(SIZES["tiny"]).named_buffers())
    assert loaded.keys() == built.keys()
    assert {name.split(".")[-1] for name in built} == {"mean", "deviation", "token_encoding"}
    assert all(torch.equal(loaded[name], built[name]) for name in built)


PEAK_WHILE_LOADING = """
import sys
from pathlib import Path
from clay_model import read_checkpoint

def peak():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

read_checkpoint(sys.argv[1])
before = peak()
read_checkpoint(sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux keeps the peak, others do not")
def test_decoder_is_not_read(path: Path, content: Content, tiny_checkpoint: Path) -> None:
    megabytes = 256
    content["state_dict"]["model.decoder.mask_patch"] = torch.zeros(megabytes, 1 << 18)
    write_checkpoint(path, content)
    command = [sys.executable, "-c", PEAK_WHILE_LOADING, str(tiny_checkpoint), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < megabytes * 1024 / 8


# What is no checkpoint


def file_of(kind: str, checkpoint: Path) -> bytes:
    """A file that somebody might take for a checkpoint."""
    whole = checkpoint.read_bytes()
    if kind == "empty":
        return b""
    if kind == "text":
        return b"clay-small-70MT-1100T-10E\n"
    if kind == "web page":
        return b"\xef\xbb\xbf\n  <!DOCTYPE html><html><title>403 Forbidden</title></html>"
    if kind == "XML":
        return b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
    if kind == "Git LFS pointer":
        return b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    if kind == "half a download":
        return whole[: len(whole) // 2]
    if kind == "safetensors":  # a header of 128 bytes, whose length looks like the mark of a pickle
        header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(128)
        return struct.pack("<Q", len(header)) + header.encode() + bytes(4)
    if kind == "bare pickle":
        return pickle.dumps({"state_dict": {}})
    if kind == "old PyTorch format":
        buffer = io.BytesIO()
        torch.save({"state_dict": {}}, buffer, _use_new_zipfile_serialization=False)
        return buffer.getvalue()
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "is an empty file"),
        ("text", r"is no zip archive \(it begins with b'clay-sma'\)"),
        ("web page", "is a web page or XML document, perhaps a download that was refused"),
        ("XML", "is a web page or XML document"),
        ("Git LFS pointer", "is a Git LFS pointer, .*git lfs pull"),
        ("half a download", "is a truncated zip archive, perhaps an interrupted download"),
        ("safetensors", "is a safetensors file"),
        ("bare pickle", "is a bare pickle"),
        ("old PyTorch format", r"is a bare pickle \(the format before PyTorch 1.6"),
    ],
)
def test_what_is_no_archive_is_named_for_what_it_is(
    path: Path, tiny_checkpoint: Path, kind: str, message: str
) -> None:
    path.write_bytes(file_of(kind, tiny_checkpoint))
    with pytest.raises(CheckpointError, match=f"model.ckpt {message}.*; expected a Lightning checkpoint"):
        read_checkpoint(path)


def parts_of(kind: str, parts: dict[str, bytes]) -> dict[str, bytes]:
    """An archive's parts, by name, spoilt in one way."""
    if kind == "nothing":
        return {}
    if kind == "another archive":
        return {"readme.txt": b"hello"}
    if kind == "pickle cut short":
        return {name: data[:9000] if name.endswith(".pkl") else data for name, data in parts.items()}
    if kind == "no tensors":
        return {name: data for name, data in parts.items() if "/data/" not in name}
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["nothing", "another archive", "pickle cut short", "no tensors"])
def test_archive_that_is_no_checkpoint_is_refused(path: Path, tiny_checkpoint: Path, kind: str) -> None:
    with zipfile.ZipFile(tiny_checkpoint) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts_of(kind, parts).items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="is a zip archive that cannot be read as a checkpoint"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
def test_damage_of_any_kind_is_a_checkpoint_error(path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": {QKV: torch.ones(2), "b": torch.ones(3)}, "hyper_parameters": {}}, buffer)
    whole, chance = buffer.getvalue(), random.Random(0)  # noqa: S311 - no secret
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 20)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


def test_archive_packed_again_with_compression_is_refused(path: Path, tiny_checkpoint: Path) -> None:
    with (
        zipfile.ZipFile(tiny_checkpoint) as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
    ):
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    with pytest.raises(CheckpointError, match=r"\d+ compressed parts .*PyTorch stores them plain"):
        read_checkpoint(path)


def test_missing_file_is_no_checkpoint_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*model.ckpt: expected a Lightning"):
        read_checkpoint(path)


class MakesFolder:
    """An object whose pickle makes a folder when it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("part", ["hyper_parameters", "callbacks"])
def test_code_beside_the_weights_is_not_run_and_the_weights_are_read(
    path: Path, tmp_path: Path, content: Content, part: str
) -> None:
    folder = tmp_path / "made by the pickle"
    content.setdefault(part, {})["trap"] = MakesFolder(folder)
    assert_holds(read_checkpoint(write_checkpoint(path, content)).encoder, encoder_state("tiny"))
    assert not folder.exists()

    torch.load(path, weights_only=False)  # the trap does work
    assert folder.exists()


def test_code_among_the_weights_is_refused_and_not_run(path: Path, tmp_path: Path, content: Content) -> None:
    folder = tmp_path / "made by the pickle"
    content["state_dict"]["trap"] = MakesFolder(folder)
    with pytest.raises(CheckpointError, match=r"unexpected trap \(\w+\.mkdir, never run\)"):
        read_checkpoint(write_checkpoint(path, content))
    assert not folder.exists()


def test_bare_pickle_is_not_run(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made by the pickle"
    path.write_bytes(pickle.dumps(MakesFolder(folder)))
    with pytest.raises(CheckpointError, match="bare pickle"):
        read_checkpoint(path)
    assert not folder.exists()


# What is another checkpoint


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(3), "holds a Tensor"),
        ([1, 2], "holds a list"),
        ({}, "holds no `state_dict` but nothing"),
        ({"model": {}, "epoch": 3}, "holds no `state_dict` but epoch, model"),
        ({"state_dict": torch.zeros(3)}, "holds no `state_dict`"),
        (
            {"state_dict": {}},
            r"no patch embedding of Clay v0 \(model.encoder.patch_embedding.rgb.…\) and none of Clay v1.5"
            r" \(model.encoder.patch_embedding.weight_generator.…\) among its 0 weights \(the first: none\)",
        ),
        (
            {"state_dict": {"vit.cls": torch.zeros(1), "vit.pos": torch.zeros(1)}},
            r"among its 2 weights \(the first: vit.cls, vit.pos\); expected .* Clay v0 or Clay v1.5",
        ),
    ],
    ids=["tensor", "list", "empty", "other keys", "no mapping", "no weights", "other network"],
)
def test_other_content_is_named(path: Path, wrong: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(write_checkpoint(path, wrong))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"image_size": 256}, "image_size 256, expected 512"),
        ({"patch_size": 16}, "patch_size 16, expected 32"),
        ({"patch_size": "32"}, "patch_size '32', expected 32"),
        ({"image_size": 224, "patch_size": 16}, "image_size 224, expected 512; patch_size 16, expected 32"),
        (
            {"band_groups": {"rgb": [2, 1, 0]}},
            r"band_groups {'rgb': \[2, 1, 0\]}, expected {'rgb': \(2, 1, 0\)",
        ),
        ({"band_groups": GROUP_BANDS | {"rgb": (0, 1, 2)}}, r"band_groups .*\(0, 1, 2\).*, expected "),
        ({"band_groups": dict(reversed(GROUP_BANDS.items()))}, "band_groups {'dem': .*, expected {'rgb'"),
        ({"band_groups": None}, "band_groups None, expected {'rgb'"),
    ],
    ids=["image", "patch", "text", "both", "few groups", "other bands", "another order", "no groups"],
)
def test_network_trained_for_other_pixels_is_refused(
    path: Path, content: Content, setting: Content, message: str
) -> None:
    content["hyper_parameters"] |= setting
    with pytest.raises(CheckpointError, match=f"was trained with {message}"):
        read_checkpoint(write_checkpoint(path, content))


def test_band_groups_may_be_lists(path: Path, content: Content) -> None:
    content["hyper_parameters"]["band_groups"] = {name: list(bands) for name, bands in GROUP_BANDS.items()}
    assert read_checkpoint(write_checkpoint(path, content)).model_size == "tiny"


@pytest.mark.parametrize("size", ["huge", 3, ["tiny"]])
def test_unknown_size_is_refused_with_the_known_ones(path: Path, content: Content, size: object) -> None:
    content["hyper_parameters"]["model_size"] = size
    with pytest.raises(
        CheckpointError,
        match=r"is of Clay v0 and says model_size .*, expected one of tiny, small, medium, large",
    ):
        read_checkpoint(write_checkpoint(path, content))


def test_everything_that_differs_is_listed_in_one_error(path: Path, content: Content) -> None:
    state = content["state_dict"]
    layer = f"{PREFIX}transformer.layers.3.1.net"
    del state[f"{PREFIX}time_embedding.bias"], state[f"{layer}.1.weight"]
    state[f"{PREFIX}cls_token"] = torch.zeros(1, 1, 256)
    state["model.head.weight"] = torch.zeros(1)
    state[f"{PREFIX}patch_embedding.sar.proj.weight"] = torch.zeros(256, 2, 16, 16)
    state[QKV] = torch.zeros(768, 256, dtype=torch.int8)
    state[f"{layer}.4.bias"][7] = torch.nan
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(write_checkpoint(path, content))
    lines = str(refused.value).splitlines()
    assert "does not fit an encoder of Clay v0" in lines[0]
    assert lines[0].endswith("with 32-pixel patches (7 differences):")
    assert sorted(line.strip() for line in lines[1:-1]) == [
        f"missing {PREFIX}time_embedding.bias (256,)",
        f"missing {layer}.1.weight (512, 256)",
        f"{PREFIX}patch_embedding.sar.proj.weight has shape (256, 2, 16, 16), expected (256, 2, 32, 32)",
        f"{QKV} holds torch.int8 (torch.strided, cpu),"
        " expected floating-point numbers in a plain dense array",
        f"{layer}.4.bias holds 1 numbers that are not finite: its training diverged, or the file is damaged",
        f"unexpected {PREFIX}cls_token (1, 1, 256)",
        "unexpected model.head.weight (Tensor)",
    ]
    assert "expected a Lightning checkpoint of Clay v0" in lines[-1]


def test_size_that_the_weights_contradict_is_refused(path: Path, content: Content) -> None:
    content["hyper_parameters"]["model_size"] = "small"
    with pytest.raises(
        CheckpointError, match=r"to_qkv.weight has shape \(768, 256\), expected \(2304, 768\)"
    ):
        read_checkpoint(write_checkpoint(path, content))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.eye(768, 256).to_sparse(), r"missing .*to_qkv.weight \(torch._utils._rebuild_sparse_tensor"),
        (
            torch.zeros(768, 256, device="meta"),
            r"missing .*to_qkv.weight \(torch._utils._rebuild_meta_tensor",
        ),
        (torch.zeros(768, 256, dtype=torch.complex64), "holds torch.complex64"),
        (torch.full((768, 256), torch.inf, dtype=torch.float16), "holds 196608 numbers that are not finite"),
        (None, r"missing .*unexpected model.encoder.transformer.layers.0.0.to_qkv.weight \(NoneType\)"),
    ],
    ids=["sparse", "without numbers", "complex", "overflown", "nothing"],
)
def test_weight_that_cannot_be_one_is_refused(
    path: Path, content: Content, tensor: Tensor | None, message: str
) -> None:
    content["state_dict"][QKV] = tensor
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        read_checkpoint(write_checkpoint(path, content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(QKV), "names no model_size .* which would tell its size, is missing"),
        (lambda state: state.update({QKV: torch.zeros(3)}), "is missing or no matrix"),
        (lambda state: state.update({QKV: torch.zeros(3, 8)}), r"imply .*heads=0.*no encoder of Clay v0"),
        (lambda state: state.pop(QKV.replace("layers.0", "layers.2")), "missing .*layers.2.0.to_qkv.weight"),
    ],
    ids=["missing", "no matrix", "too narrow", "missing elsewhere"],
)
def test_weights_that_imply_no_size_are_refused(
    path: Path, content: Content, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    del content["hyper_parameters"]
    change(content["state_dict"])
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        read_checkpoint(write_checkpoint(path, content))
