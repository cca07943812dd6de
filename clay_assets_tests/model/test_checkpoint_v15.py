"""Checkpoints of Clay v1.5, as Lightning writes them in training: the encoder in much that is not."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clay_assets_tests.checkpoints import (
    encoder_state,
    encoder_state_v15,
    lightning_checkpoint_v15,
    write_checkpoint,
)
from clay_model import V0, V15, CheckpointError, Dimensions, load_encoder, read_checkpoint
from clay_model.checkpoint import parameter_shapes
from clay_model.v15.checkpoint import FORMAT
from clay_model.v15.generator import KernelGenerator

PREFIX = "model.encoder."
QKV = f"{PREFIX}transformer.layers.0.0.to_qkv.weight"
CUSTOM = Dimensions(dim=64, depth=2, heads=2, mlp_ratio=2)

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    """A small checkpoint's content, to be changed."""
    return lightning_checkpoint_v15("custom")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clay-v1.5.ckpt"


def assert_holds(path: Path, state: dict[str, Tensor]) -> None:
    """Hold the encoder's parameters, but for those that its kernels are made of, to the file's."""
    checkpoint = read_checkpoint(path)
    ours = checkpoint.encoder.state_dict()
    names = FORMAT.names(checkpoint.encoder.dimensions)
    kept = {name: ours[names[name.removeprefix(PREFIX)]] for name in state if "patch_embedding" not in name}
    assert len(kept) == len(ours) - 2  # the generated kernels and bias
    assert not [name for name, tensor in kept.items() if not torch.equal(tensor, state[name])]


def test_checkpoint_gives_its_weights_model_and_size(v15_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(v15_checkpoint)
    assert checkpoint.encoder.spec is V15
    assert checkpoint.model_size == "small"
    assert not checkpoint.untrained
    assert not any(parameter.requires_grad for parameter in checkpoint.encoder.parameters())
    assert {parameter.dtype for parameter in checkpoint.encoder.parameters()} == {torch.float32}
    assert_holds(v15_checkpoint, encoder_state_v15("small"))


def test_each_model_is_told_by_its_weights_alone(path: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "v0.ckpt", {"state_dict": encoder_state("tiny")})
    write_checkpoint(path, {"state_dict": encoder_state_v15("custom")})
    assert (read_checkpoint(other).encoder.spec, read_checkpoint(path).encoder.spec) == (V0, V15)


def test_size_without_a_name_comes_from_shapes(path: Path, content: Content) -> None:
    checkpoint = read_checkpoint(write_checkpoint(path, content))
    assert checkpoint.model_size == "custom-64x2"
    assert checkpoint.encoder.dimensions == CUSTOM


def test_checkpoint_that_says_it_is_untrained_is_known_as_such(path: Path) -> None:
    write_checkpoint(path, lightning_checkpoint_v15("custom", untrained=True))
    assert load_encoder(path, "cpu").untrained


def test_shapes_are_those_of_the_published_encoder() -> None:
    published = {name: tuple(tensor.shape) for name, tensor in encoder_state_v15("small").items()}
    shapes = parameter_shapes(V15.sizes["small"], V15)
    assert {PREFIX + name: shape for name, shape in shapes.items()} == published


class Box(dict[str, Any]):
    """A configuration object like those of python-box, which `weights_only` refuses."""


def test_configuration_object_in_the_file_is_read_as_data(path: Path, content: Content) -> None:
    content["hyper_parameters"]["metadata"] = Box({"sentinel-2-l2a": Box(band_order=["blue"])})
    content["hyper_parameters"] = Box(content["hyper_parameters"])
    with pytest.raises(Exception, match="Box"):  # what reads it otherwise
        torch.load(write_checkpoint(path, content), weights_only=True)
    assert_holds(path, encoder_state_v15("custom"))


def test_settings_in_a_configuration_object_count(path: Path, content: Content) -> None:
    content["hyper_parameters"] = Box(content["hyper_parameters"] | {"patch_size": 16})
    with pytest.raises(CheckpointError, match="was trained with patch_size 16, expected 8"):
        read_checkpoint(write_checkpoint(path, content))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"patch_size": 16}, "patch_size 16, expected 8"),
        ({"image_size": 224}, "image_size 224, expected 256"),
    ],
)
def test_network_trained_for_other_pixels_is_refused(
    path: Path, content: Content, setting: Content, message: str
) -> None:
    content["hyper_parameters"] |= setting
    with pytest.raises(CheckpointError, match=f"was trained with {message}: .* not what Clay v1.5 is given"):
        read_checkpoint(write_checkpoint(path, content))


@pytest.mark.parametrize("size", ["base", "tiny", 3])
def test_unknown_size_is_refused_with_the_known_ones(path: Path, content: Content, size: object) -> None:
    content["hyper_parameters"]["model_size"] = size
    with pytest.raises(
        CheckpointError, match=r"is of Clay v1.5 and says model_size .*, expected one of small, large"
    ):
        read_checkpoint(write_checkpoint(path, content))


@pytest.mark.parametrize("prefix", ["model.decoder.", "model.teacher.", "model.proj.", "model.mrl."])
def test_what_embeddings_do_not_need_is_dropped_by_name(path: Path, content: Content, prefix: str) -> None:
    content["state_dict"][f"{prefix}anything"] = torch.zeros(3)
    assert_holds(write_checkpoint(path, content), encoder_state_v15("custom"))


def test_everything_that_differs_is_listed_in_one_error(path: Path, content: Content) -> None:
    state = content["state_dict"]
    del state[f"{PREFIX}cls_token"], state[f"{PREFIX}patch_embedding.weight_generator.bias_token"]
    state["model.head.weight"] = torch.zeros(1)
    state["model.projection.weight"] = torch.zeros(1)
    state[f"{PREFIX}transformer.layers.0.0.to_out.bias"] = torch.zeros(64)
    state[QKV][0, 0] = torch.inf
    state[f"{PREFIX}patch_embedding.fclayer.l1.weight"] = torch.zeros(64, 64)
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(write_checkpoint(path, content))
    lines = str(refused.value).splitlines()
    assert "does not fit an encoder of Clay v1.5" in lines[0]
    assert lines[0].endswith("with 8-pixel patches (7 differences):")
    assert sorted(line.strip() for line in lines[1:-1]) == [
        f"missing {PREFIX}cls_token (1, 1, 64)",
        f"missing {PREFIX}patch_embedding.weight_generator.bias_token (1, 128)",
        f"{PREFIX}patch_embedding.fclayer.l1.weight has shape (64, 64), expected (128, 128)",
        f"{QKV} holds 1 numbers that are not finite: its training diverged, or the file is damaged",
        f"unexpected {PREFIX}transformer.layers.0.0.to_out.bias (64,)",
        "unexpected model.head.weight (Tensor)",
        "unexpected model.projection.weight (Tensor)",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(QKV), "names no model_size .* which would tell its size, is missing"),
        (lambda state: state.update({QKV: torch.zeros(3, 8)}), r"imply .*heads=0.*no encoder of Clay v1\.5"),
    ],
    ids=["missing", "too narrow"],
)
def test_weights_that_imply_no_size_are_refused(
    path: Path, content: Content, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    change(content["state_dict"])
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        read_checkpoint(write_checkpoint(path, content))


# Of a file far larger than its encoder

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
def test_decoder_teacher_projection_and_optimizer_are_not_read(path: Path, tmp_path: Path) -> None:
    side = 4096  # four matrices of 64 MiB
    lean = write_checkpoint(tmp_path / "lean.ckpt", lightning_checkpoint_v15("custom"))
    write_checkpoint(path, lightning_checkpoint_v15("custom", others=side))
    assert path.stat().st_size > 4 * 4 * side**2
    command = [sys.executable, "-c", PEAK_WHILE_LOADING, str(lean), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 4 * side**2 / 8


def test_numbers_of_decoder_and_teacher_may_be_garbage(path: Path) -> None:
    content = lightning_checkpoint_v15("custom", others=64)
    marker = 12345.678
    for part in ("model.decoder.enc_to_dec.weight", "model.teacher.blocks.0.attn.qkv.weight"):
        content["state_dict"][part].fill_(marker)
    write_checkpoint(path, content)
    numbers = torch.full((64, 64), marker).numpy().tobytes()
    data = path.read_bytes()
    assert data.count(numbers) == 2
    path.write_bytes(data.replace(numbers, b"\xff" * len(numbers)))  # NaN in each place
    assert_holds(path, encoder_state_v15("custom"))


# The kernels


def test_kernels_are_generated_once_when_the_checkpoint_is_loaded(
    v15_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Sequence[float]] = []
    forward = KernelGenerator.forward

    def counted(self: KernelGenerator, wavelengths: Sequence[float]) -> tuple[Tensor, Tensor]:
        calls.append(wavelengths)
        return forward(self, wavelengths)

    monkeypatch.setattr(KernelGenerator, "forward", counted)
    encoder = load_encoder(v15_checkpoint, "cpu")
    pixels = torch.zeros(2, 10, 64, 64)
    encoder.encode(pixels, torch.zeros(2, 4), torch.zeros(2, 4), "cls")
    assert calls == [V15.wavelengths]
    assert not [module for module in encoder.encoder.modules() if isinstance(module, KernelGenerator)]


def test_kernels_of_a_band_depend_on_its_wavelength() -> None:
    generator = KernelGenerator(16).eval()
    with torch.no_grad():
        torch.nn.init.normal_(generator.weight_tokens, generator=torch.Generator().manual_seed(0))
        kernels, bias = generator([0.493, 0.56, 0.493])
    assert kernels.shape == (16, 3, 8, 8)
    assert bias.shape == (16,)
    assert torch.allclose(kernels[:, 0], kernels[:, 2], atol=1e-6)
    assert not torch.allclose(kernels[:, 0], kernels[:, 1], atol=1e-3 * float(kernels.abs().max()))
