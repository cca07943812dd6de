"""Checkpoints of both models, as Lightning writes them."""

import shutil
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
    lightning_checkpoint,
    lightning_checkpoint_v15,
    write_checkpoint,
)
from clay_assets_tests.recipe import GROUP_BANDS
from clay_model import V0, V15, CheckpointError, Dimensions, ModelSpec, load_encoder, read_checkpoint
from clay_model.checkpoint import FORMATS, parameter_shapes
from clay_model.encoder import Encoder
from clay_model.v0.encoder import Encoder as EncoderV0
from clay_model.v15.generator import KernelGenerator

PREFIX = "model.encoder."
QKV = f"{PREFIX}transformer.layers.0.0.to_qkv.weight"
OUT = f"{PREFIX}transformer.layers.0.0.to_out.0.weight"
CUSTOM = {V0: Dimensions(16, 1, 1, 2), V15: Dimensions(64, 2, 2, 2)}
"""Dimensions of the checkpoints that most tests read; an unnamed size, but quick."""

STATES = {V0: encoder_state, V15: encoder_state_v15}
CONTENTS: dict[ModelSpec, Callable[..., dict[str, Any]]] = {
    V0: lightning_checkpoint,
    V15: lightning_checkpoint_v15,
}
NAMES = {form.spec: form.names for form in FORMATS}

Content = dict[str, Any]
State = dict[str, Tensor]

ONLY_V0 = pytest.mark.parametrize("spec", [V0], ids=["v0"], indirect=True)
ONLY_V15 = pytest.mark.parametrize("spec", [V15], ids=["v1.5"], indirect=True)


@pytest.fixture(params=[V0, V15], ids=["v0", "v1.5"])
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    model: ModelSpec = request.param
    return model


@pytest.fixture
def content(spec: ModelSpec) -> Content:
    """A small checkpoint's content, to be changed."""
    return CONTENTS[spec]("custom")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


def assert_holds(encoder: Encoder, state: State) -> None:
    """Compare the encoder's parameters with a checkpoint's, except v1.5's kernels, which are generated."""
    ours = encoder.state_dict()
    names = NAMES[encoder.spec](encoder.dimensions)
    kept = {names[name.removeprefix(PREFIX)]: tensor for name, tensor in state.items()}
    kept = {name: tensor for name, tensor in kept.items() if not name.startswith("generator.")}
    assert ours.keys() - kept.keys() <= {"patch_embedding.proj.weight", "patch_embedding.proj.bias"}
    assert not [name for name, tensor in kept.items() if not torch.equal(ours[name], tensor)]


# Accepted checkpoints


@pytest.mark.parametrize(
    ("file", "spec", "size"),
    [("tiny_checkpoint", V0, "tiny"), ("v15_checkpoint", V15, "small")],
    indirect=["spec"],
    ids=["v0", "v1.5"],
)
def test_checkpoint_gives_its_weights_model_and_size(
    file: str, spec: ModelSpec, size: str, request: pytest.FixtureRequest
) -> None:
    random_numbers = torch.get_rng_state()
    checkpoint = read_checkpoint(str(request.getfixturevalue(file)))
    assert (checkpoint.spec, checkpoint.model_size, checkpoint.untrained) == (spec, size, False)
    assert checkpoint.dimensions == checkpoint.encoder.dimensions == spec.sizes[size]
    assert not checkpoint.encoder.training
    assert not any(parameter.requires_grad for parameter in checkpoint.encoder.parameters())
    assert {parameter.dtype for parameter in checkpoint.encoder.parameters()} == {torch.float32}
    assert_holds(checkpoint.encoder, STATES[spec](size))
    assert torch.equal(torch.get_rng_state(), random_numbers)


def test_encoder_alone_is_enough(path: Path, spec: ModelSpec) -> None:
    state = STATES[spec]("custom")
    checkpoint = read_checkpoint(write_checkpoint(path, {"state_dict": state}))
    assert checkpoint.spec is spec
    assert_holds(checkpoint.encoder, state)


def test_checkpoint_marked_as_untrained_is_recognised(path: Path, spec: ModelSpec) -> None:
    write_checkpoint(path, CONTENTS[spec]("custom", untrained=True))
    assert load_encoder(path, "cpu").untrained


@pytest.mark.parametrize("settings", [None, {}, {"lr": 1e-4}], ids=["left out", "empty", "without size"])
def test_size_is_inferred_from_shapes_without_hyper_parameters(
    path: Path, spec: ModelSpec, settings: dict[str, float] | None
) -> None:
    content = {"state_dict": STATES[spec]("custom")}
    checkpoint = read_checkpoint(
        write_checkpoint(path, content if settings is None else content | {"hyper_parameters": settings})
    )
    assert checkpoint.model_size == {V0: "custom-16x1", V15: "custom-64x2"}[spec]
    assert checkpoint.encoder.dimensions == CUSTOM[spec]


def test_inferred_size_has_its_name(path: Path) -> None:
    checkpoint = read_checkpoint(write_checkpoint(path, {"state_dict": encoder_state("tiny")}))
    assert checkpoint.model_size == "tiny"


def test_heads_may_be_wider_than_a_token(path: Path) -> None:
    dimensions = Dimensions(dim=64, depth=2, heads=3, mlp_ratio=1)  # as in `large`
    state = {PREFIX + name: torch.randn(shape) for name, shape in parameter_shapes(dimensions).items()}
    checkpoint = read_checkpoint(write_checkpoint(path, {"state_dict": state}))
    assert checkpoint.encoder.dimensions == dimensions
    assert_holds(checkpoint.encoder, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_float_type_become_float32(
    path: Path, spec: ModelSpec, dtype: torch.dtype
) -> None:
    state = {name: tensor.to(dtype) for name, tensor in STATES[spec]("custom").items()}
    encoder = read_checkpoint(write_checkpoint(path, {"state_dict": state})).encoder
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert_holds(encoder, {name: tensor.float() for name, tensor in state.items()})


def test_weights_that_are_transposed_in_the_file_become_contiguous(path: Path, content: Content) -> None:
    content["state_dict"][QKV] = content["state_dict"][QKV].T.contiguous().T
    encoder = read_checkpoint(write_checkpoint(path, content)).encoder
    assert all(parameter.is_contiguous() for parameter in encoder.parameters())
    assert_holds(encoder, STATES[encoder.spec]("custom"))


def test_file_overwritten_after_loading_changes_nothing(path: Path, tiny_checkpoint: Path) -> None:
    shutil.copy(tiny_checkpoint, path)
    encoder = read_checkpoint(path).encoder
    path.write_bytes(bytes(path.stat().st_size))
    assert_holds(encoder, encoder_state("tiny"))


def test_constants_are_those_of_an_encoder_built_without_checkpoint(tiny_checkpoint: Path) -> None:
    loaded = dict(read_checkpoint(tiny_checkpoint).encoder.named_buffers())
    built = dict(EncoderV0(V0.sizes["tiny"]).named_buffers())
    assert loaded.keys() == built.keys()
    assert {name.split(".")[-1] for name in built} == {"mean", "deviation", "token_encoding"}
    assert all(torch.equal(loaded[name], built[name]) for name in built)


def test_shapes_are_those_of_the_published_encoder() -> None:
    published = {name: tuple(tensor.shape) for name, tensor in encoder_state_v15("small").items()}
    shapes = parameter_shapes(V15.sizes["small"], V15)
    assert {PREFIX + name: shape for name, shape in shapes.items()} == published


# Weights that are not read


@ONLY_V15
@pytest.mark.parametrize("prefix", ["model.decoder.", "model.teacher.", "model.proj.", "model.mrl."])
def test_unneeded_weights_are_dropped_by_prefix(path: Path, content: Content, prefix: str) -> None:
    content["state_dict"][f"{prefix}anything"] = torch.zeros(3)
    assert_holds(read_checkpoint(write_checkpoint(path, content)).encoder, encoder_state_v15("custom"))


def test_decoder_and_teacher_may_hold_garbage(path: Path) -> None:
    content = lightning_checkpoint_v15("custom", others=64)
    for part in ("model.decoder.enc_to_dec.weight", "model.teacher.blocks.0.attn.qkv.weight"):
        content["state_dict"][part].fill_(torch.nan)
    assert_holds(read_checkpoint(write_checkpoint(path, content)).encoder, encoder_state_v15("custom"))


PEAK_WHILE_LOADING = """
import sys
from pathlib import Path
from clay_model import read_checkpoint

def peak():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

read_checkpoint(sys.argv[1])
before = peak()
for path in sys.argv[2:]:
    read_checkpoint(path)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux records the peak")
def test_decoder_teacher_projection_and_optimizer_are_not_read(tmp_path: Path) -> None:
    side = 4096  # of matrices of 64 MiB
    content = lightning_checkpoint("custom")
    content["state_dict"]["model.decoder.mask_patch"] = torch.zeros(side, side)
    paths = [
        write_checkpoint(tmp_path / "lean.ckpt", lightning_checkpoint_v15("custom")),
        write_checkpoint(tmp_path / "v15.ckpt", lightning_checkpoint_v15("custom", others=side)),
        write_checkpoint(tmp_path / "v0.ckpt", content),
    ]
    assert paths[1].stat().st_size > 4 * 4 * side**2
    command = [sys.executable, "-c", PEAK_WHILE_LOADING, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 4 * side**2 / 4, "a quarter of the smallest unneeded matrix"


# Other content


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
def test_other_content_is_identified(path: Path, wrong: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(write_checkpoint(path, wrong))


class Box(dict[str, Any]):
    """A configuration object like those of python-box, which `weights_only` refuses."""


def test_configuration_object_in_the_file_is_read_as_data(
    path: Path, spec: ModelSpec, content: Content
) -> None:
    content["hyper_parameters"]["metadata"] = Box({"sentinel-2-l2a": Box(band_order=["blue"])})
    content["hyper_parameters"] = Box(content["hyper_parameters"])
    assert_holds(read_checkpoint(write_checkpoint(path, content)).encoder, STATES[spec]("custom"))


OTHER_GROUPS = GROUP_BANDS | {"rgb": (0, 1, 2)}
OTHER_ORDER = dict(reversed(GROUP_BANDS.items()))


@pytest.mark.parametrize("kind", [dict, Box])
@pytest.mark.parametrize(
    ("spec", "setting", "message"),
    [
        (V0, {"image_size": 256}, "image_size 256, expected 512"),
        (V0, {"patch_size": "32"}, "patch_size '32', expected 32"),
        (
            V0,
            {"image_size": 224, "patch_size": 16},
            "image_size 224, expected 512; patch_size 16, expected 32",
        ),
        (
            V0,
            {"band_groups": {"rgb": [2, 1, 0]}},
            r"band_groups {'rgb': \[2, 1, 0\]}, expected {'rgb': \(2, 1",
        ),
        (V0, {"band_groups": OTHER_GROUPS}, r"band_groups .*\(0, 1, 2\).*, expected "),
        (V0, {"band_groups": OTHER_ORDER}, "band_groups {'dem': .*, expected {'rgb'"),
        (V0, {"band_groups": None}, "band_groups None, expected {'rgb'"),
        (V15, {"patch_size": 16}, "patch_size 16, expected 8"),
        (V15, {"image_size": 224}, "image_size 224, expected 256"),
    ],
    indirect=["spec"],
)
def test_network_trained_for_other_pixels_is_refused(
    path: Path, spec: ModelSpec, content: Content, setting: Content, message: str, kind: type
) -> None:
    content["hyper_parameters"] = kind(content["hyper_parameters"] | setting)
    with pytest.raises(
        CheckpointError, match=f"was trained with {message}.*: .* not what {spec.title} is given"
    ):
        read_checkpoint(write_checkpoint(path, content))


@ONLY_V0
def test_band_groups_may_be_lists(path: Path, content: Content) -> None:
    content["hyper_parameters"]["band_groups"] = {name: list(bands) for name, bands in GROUP_BANDS.items()}
    assert read_checkpoint(write_checkpoint(path, content)).spec is V0


@pytest.mark.parametrize("size", ["base", 3, ["small"]])
def test_unknown_size_is_refused_with_the_known_ones(
    path: Path, spec: ModelSpec, content: Content, size: object
) -> None:
    content["hyper_parameters"]["model_size"] = size
    known = {V0: "tiny, small, medium, large", V15: "small, large"}[spec]
    with pytest.raises(
        CheckpointError, match=f"is of {spec.title} and says model_size .*, expected one of {known};"
    ):
        read_checkpoint(write_checkpoint(path, content))


def test_size_that_the_weights_contradict_is_refused(path: Path, content: Content) -> None:
    content["hyper_parameters"]["model_size"] = "small"
    with pytest.raises(
        CheckpointError, match=r"0.to_qkv.weight has shape \(\d+, \d+\), expected \(\d+, \d+\)"
    ):
        read_checkpoint(write_checkpoint(path, content))


def spoil_v0(state: State) -> None:
    layer = f"{PREFIX}transformer.layers.0.1.net"
    del state[f"{PREFIX}time_embedding.bias"], state[f"{layer}.4.weight"]
    state[f"{PREFIX}cls_token"] = torch.zeros(1, 1, 16)
    state["model.head.weight"] = torch.zeros(1)
    state[f"{PREFIX}patch_embedding.sar.proj.weight"] = torch.zeros(16, 2, 16, 16)
    state[QKV] = torch.zeros(192, 16, dtype=torch.int8)
    state[f"{layer}.4.bias"][7] = torch.nan


DIFFERENCES_V0 = [
    f"missing {PREFIX}time_embedding.bias (16,)",
    f"missing {PREFIX}transformer.layers.0.1.net.4.weight (16, 32)",
    f"{PREFIX}patch_embedding.sar.proj.weight has shape (16, 2, 16, 16), expected (16, 2, 32, 32)",
    f"{QKV} holds torch.int8 (torch.strided, cpu), expected floating-point numbers in a plain dense array",
    f"{PREFIX}transformer.layers.0.1.net.4.bias holds 1 numbers that are not finite:"
    " its training diverged, or the file is damaged",
    f"unexpected {PREFIX}cls_token (1, 1, 16)",
    "unexpected model.head.weight (Tensor)",
]


def spoil_v15(state: State) -> None:
    del state[f"{PREFIX}cls_token"], state[f"{PREFIX}patch_embedding.weight_generator.bias_token"]
    state["model.head.weight"] = torch.zeros(1)
    state["model.projection.weight"] = torch.zeros(1)
    state[f"{PREFIX}transformer.layers.0.0.to_out.bias"] = torch.zeros(64)
    state[QKV][0, 0] = torch.inf
    state[f"{PREFIX}patch_embedding.fclayer.l1.weight"] = torch.zeros(64, 64)


DIFFERENCES_V15 = [
    f"missing {PREFIX}cls_token (1, 1, 64)",
    f"missing {PREFIX}patch_embedding.weight_generator.bias_token (1, 128)",
    f"{PREFIX}patch_embedding.fclayer.l1.weight has shape (64, 64), expected (128, 128)",
    f"{QKV} holds 1 numbers that are not finite: its training diverged, or the file is damaged",
    f"unexpected {PREFIX}transformer.layers.0.0.to_out.bias (64,)",
    "unexpected model.head.weight (Tensor)",
    "unexpected model.projection.weight (Tensor)",
]


@pytest.mark.parametrize(
    ("spec", "spoil", "differences"),
    [(V0, spoil_v0, DIFFERENCES_V0), (V15, spoil_v15, DIFFERENCES_V15)],
    ids=["v0", "v1.5"],
    indirect=["spec"],
)
def test_everything_that_differs_is_listed_in_one_error(
    path: Path, spec: ModelSpec, content: Content, spoil: Callable[[State], None], differences: list[str]
) -> None:
    spoil(content["state_dict"])
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(write_checkpoint(path, content))
    first, *lines, last = str(refused.value).splitlines()
    assert f"does not fit an encoder of {spec.title}" in first
    assert first.endswith(f"with {spec.patch_size}-pixel patches (7 differences):")
    assert sorted(line.strip() for line in lines) == sorted(differences)
    assert "expected a Lightning checkpoint of Clay v0" in last


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.eye(16, 64).to_sparse(), r"missing .*to_out.0.weight \(torch._utils._rebuild_sparse_tensor"),
        (
            torch.zeros(16, 64, device="meta"),
            r"missing .*to_out.0.weight \(torch._utils._rebuild_meta_tensor",
        ),
        (torch.zeros(16, 64, dtype=torch.complex64), "holds torch.complex64"),
        (torch.full((16, 64), torch.inf, dtype=torch.float16), "holds 1024 numbers that are not finite"),
        (None, r"missing .*unexpected model.encoder.transformer.layers.0.0.to_out.0.weight \(NoneType\)"),
    ],
    ids=["sparse", "without numbers", "complex", "overflown", "nothing"],
)
@ONLY_V0
def test_invalid_weight_is_refused(path: Path, content: Content, tensor: Tensor | None, message: str) -> None:
    content["state_dict"][OUT] = tensor
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        read_checkpoint(write_checkpoint(path, content))


def test_weights_that_claim_more_numbers_than_the_file_has_are_refused_at_once(path: Path) -> None:
    dimensions = Dimensions(dim=2**19, depth=1, heads=1, mlp_ratio=1)  # a matrix of 2**38 numbers, 1 TB
    shapes = parameter_shapes(dimensions).items()
    state = {PREFIX + name: torch.zeros(1).expand(shape) for name, shape in shapes}
    with pytest.raises(CheckpointError, match=r"its weights would take [0-9,]{13,}: weights repeat or share"):
        read_checkpoint(write_checkpoint(path, {"state_dict": state}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(QKV), "names no model_size .* which would tell its size, is missing"),
        (lambda state: state.update({QKV: torch.zeros(3)}), "is missing or not a matrix"),
        (lambda state: state.update({QKV: torch.zeros(3, 8)}), "imply .*heads=0.*not an encoder of Clay v"),
        (lambda state: state.pop(QKV.replace("to_qkv", "norm")), "missing .*layers.0.0.norm.weight"),
    ],
    ids=["missing", "no matrix", "too narrow", "missing elsewhere"],
)
def test_weights_that_imply_no_size_are_refused(
    path: Path, content: Content, change: Callable[[State], object], message: str
) -> None:
    change(content["state_dict"])
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        read_checkpoint(write_checkpoint(path, content))


# The kernels of Clay v1.5


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
    encoder.encode(torch.zeros(2, 10, 64, 64), torch.zeros(2, 4), torch.zeros(2, 4), "cls")
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
