"""The fast path against the plain one: same weights, same chips, the largest difference printed."""

import copy
import dataclasses
import datetime
import platform
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from clay_model import V0, V15, Dimensions, Embedder, Level, ModelSpec, Precision
from clay_model.accelerate import LARGEST_BATCH, auto_batch_size, fitting_batch
from clay_model.device import multiplies_bf16
from clay_model.encoder import Encoder
from clay_model.kernels.attention import headwise_attention
from clay_model.kernels.packed import PackedLinear, packing_works
from clay_model.layers import Attention, plain_attention
from clay_model.model_spec import HEAD_DIM
from clay_model.v0.encoder import Encoder as EncoderV0
from clay_model.v0.spec import TOKENS
from clay_model.v15.encoder import Encoder as EncoderV15

BOUND: dict[Precision, float] = {"fp32": 1e-5, "bf16": 1e-2}
"""Largest relative distance of any one vector to the plain path's in float32."""

CPU = torch.device("cpu")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


NETWORKS: dict[ModelSpec, type[Encoder]] = {V0: EncoderV0, V15: EncoderV15}
LEVELS = [(spec, level) for spec in NETWORKS for level in spec.levels]
MODELS = pytest.mark.parametrize("spec", NETWORKS, ids=lambda spec: spec.name)


def random_encoder(spec: ModelSpec, dimensions: Dimensions, seed: int = 0) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[spec](dimensions).requires_grad_(False)


def shallow(spec: ModelSpec, size: str = "", depth: int = 2) -> Dimensions:
    """A size with fewer layers; by default the model's smallest."""
    return dataclasses.replace(spec.sizes[size or next(iter(spec.sizes))], depth=depth)


def chips(spec: ModelSpec, count: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels with every band's own mean and deviation, places and dates of `count` chips."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, len(spec.bands), spec.window_size, spec.window_size, generator=generator)
    pixels = noise * torch.tensor(spec.deviation).view(-1, 1, 1) + torch.tensor(spec.mean).view(-1, 1, 1)
    lonlat = np.array([(10.0 * chip - 20, 50.0) for chip in range(count)]).reshape(-1, 2)
    dates = [datetime.datetime(2020, 6, 1 + chip, chip) for chip in range(count)]
    return pixels, *NETWORKS[spec].context(lonlat, dates)


def finest(spec: ModelSpec) -> Level:
    """The level with every patch token."""
    return list(spec.levels)[-1]


def both_paths(encoder: Encoder, precision: Precision) -> tuple[Embedder, Embedder]:
    """(fast, plain) embedders of the same weights."""
    fast = Embedder(copy.deepcopy(encoder), CPU, precision)
    return fast, Embedder(copy.deepcopy(encoder), CPU, precision, fast=False)


def largest_distance(got: Tensor, expected: Tensor) -> float:
    """Largest relative L2 distance of any one vector (last axis)."""
    assert got.shape == expected.shape
    assert torch.isfinite(got).all()
    expected = expected.double()
    distance = (got.double() - expected).norm(dim=-1) / expected.norm(dim=-1)
    return float(distance.max())


def attention_under_autocast(qkv: Tensor, heads: int) -> Tensor:
    """The original's computation in bf16: scores rounded to bf16, softmax in float32, its result in bf16."""
    query, key, value = qkv.unflatten(2, (3, heads, HEAD_DIM)).permute(2, 0, 3, 1, 4)
    scores = (query @ key.transpose(-1, -2)) * HEAD_DIM**-0.5
    return (scores.float().softmax(-1).bfloat16() @ value).transpose(1, 2).flatten(2)


def qkv_with_scores_of(spread: float, heads: int = 3) -> Tensor:
    """(1, N, 3*H*E) bf16 whose scores have a standard deviation of `spread`."""
    generator = torch.Generator().manual_seed(2)
    qkv = torch.randn(1, TOKENS, 3, heads, HEAD_DIM, generator=generator)
    qkv[:, :, :2] *= spread**0.5
    return qkv.flatten(2).bfloat16()


@pytest.mark.parametrize(
    ("spec", "size", "depth"),
    [
        (V0, "tiny", 4),
        (V0, "small", 2),
        (V0, "medium", 1),
        (V0, "large", 1),
        (V15, "small", 6),
        (V15, "large", 2),
    ],
    ids=lambda value: value.name if isinstance(value, ModelSpec) else str(value),
)
def test_fast_path_agrees_with_the_plain_one_in_every_size(spec: ModelSpec, size: str, depth: int) -> None:
    encoder = random_encoder(spec, shallow(spec, size, depth))
    inputs, level = chips(spec, 1), finest(spec)
    fast, plain = both_paths(encoder, "fp32")
    exact = plain.encode(*inputs, level)
    distance = largest_distance(fast.encode(*inputs, level), exact)
    fast, plain = both_paths(encoder, "bf16")
    distance_bf16 = largest_distance(fast.encode(*inputs, level), exact)
    plain_bf16 = largest_distance(plain.encode(*inputs, level), exact)
    print(
        f"\n{spec.model_name(size)}: fp32 {distance:.1e},"
        f" bf16 {distance_bf16:.1e} (the plain path's {plain_bf16:.1e})"
    )
    assert distance < BOUND["fp32"]
    assert distance_bf16 < min(BOUND["bf16"], 1.5 * plain_bf16)


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="oneDNN is for x86 on Linux"
)
@pytest.mark.parametrize(("spec", "embeddings"), [(V0, 6), (V15, 1)], ids=["v0", "v1.5"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_fast_path_is_in_use_where_its_operators_work(
    precision: Precision, spec: ModelSpec, embeddings: int
) -> None:
    if precision == "bf16" and not multiplies_bf16(CPU):
        pytest.skip("bf16 is not native here")
    fast, plain = both_paths(random_encoder(spec, shallow(spec, depth=1)), precision)
    packed = [type(module).__name__ for module in fast.encoder.modules()].count("PackedLinear")
    assert packed == 4 + embeddings  # four linear maps of a layer, and the patch embeddings
    assert not any(isinstance(module, PackedLinear) for module in plain.encoder.modules())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("spec", "level"), LEVELS, ids=[f"{spec.name}-{level}" for spec, level in LEVELS])
def test_batch_size_changes_no_bit_of_a_vector_on_the_cpu(
    precision: Precision, spec: ModelSpec, level: Level
) -> None:
    fast, _ = both_paths(random_encoder(spec, shallow(spec, depth=1)), precision)
    pixels, places, dates = chips(spec, 2)
    together = fast.encode(pixels, places, dates, level)
    alone = [
        fast.encode(pixels[one : one + 1], places[one : one + 1], dates[one : one + 1], level)
        for one in range(2)
    ]
    assert torch.equal(together, torch.cat(alone))


@MODELS
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_chips_give_no_vectors(precision: Precision, spec: ModelSpec) -> None:
    dimensions = shallow(spec, depth=1)
    for embedder in both_paths(random_encoder(spec, dimensions), precision):
        vectors = embedder.encode(*chips(spec, 0), "patch")
        assert vectors.shape == (0, *spec.embedding_shape("patch", dimensions.dim))


@MODELS
@pytest.mark.parametrize("precision", PRECISIONS)
def test_strided_pixels_give_the_same_vectors(precision: Precision, spec: ModelSpec) -> None:
    fast, _ = both_paths(random_encoder(spec, shallow(spec)), precision)
    pixels, places, dates = chips(spec, 2)
    interleaved = pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # as many GeoTIFFs decode
    every_other = torch.stack((pixels, pixels + 1), dim=1).flatten(0, 1)[::2]
    expected = fast.encode(pixels, places, dates, "mean")
    for strided in (interleaved, every_other):
        assert not strided.is_contiguous()
        assert torch.equal(fast.encode(strided, places, dates, "mean"), expected)


@MODELS
@pytest.mark.parametrize("precision", PRECISIONS)
def test_encoding_changes_neither_pixels_nor_weights(precision: Precision, spec: ModelSpec) -> None:
    fast, _ = both_paths(random_encoder(spec, shallow(spec)), precision)
    inputs = chips(spec, 1)
    before = [part.clone() for part in inputs]
    first = fast.encode(*inputs, "mean")
    assert torch.equal(first, fast.encode(*inputs, "mean"))
    assert all(torch.equal(part, copy_) for part, copy_ in zip(inputs, before, strict=True))


@pytest.mark.parametrize("gain", [8.0, 100.0], ids=["peaked softmax", "saturated softmax"])
def test_large_scores_lose_no_more_precision_than_in_the_original(gain: float) -> None:
    encoder = random_encoder(V0, shallow(V0, depth=1))
    for name, parameter in encoder.named_parameters():
        if name.endswith("to_qkv.weight"):
            parameter[: 2 * 4 * HEAD_DIM] *= gain  # queries and keys
    inputs = chips(V0, 1)
    fast, plain = both_paths(encoder, "fp32")
    exact = plain.encode(*inputs, "group")
    distance = largest_distance(fast.encode(*inputs, "group"), exact)
    fast, plain = both_paths(encoder, "bf16")
    for module in plain.encoder.modules():
        if isinstance(module, Attention):
            module.kernel = attention_under_autocast
    distance_bf16 = largest_distance(fast.encode(*inputs, "group"), exact)
    original_bf16 = largest_distance(plain.encode(*inputs, "group"), exact)
    print(f"\nx {gain:g}: fp32 {distance:.1e}, bf16 {distance_bf16:.1e} (the original's {original_bf16:.1e})")
    # Once the softmax saturates, rounding decides which of two nearly equal largest scores wins.
    assert distance < 1e-3
    assert distance_bf16 < 1.5 * original_bf16


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0, 30.0, 3000.0])
def test_headwise_attention_is_no_worse_than_the_softmax_of_bf16_scores(spread: float) -> None:
    qkv = qkv_with_scores_of(spread)
    exact = plain_attention(qkv.float(), 3)
    mine, theirs = (
        float((kernel(qkv, 3) - exact).norm() / exact.norm())
        for kernel in (headwise_attention, attention_under_autocast)
    )
    print(f"\nscores of ±{spread:g}: head by head {mine:.1e}, matmul and softmax {theirs:.1e}")
    assert mine < 1.5 * theirs


@pytest.mark.parametrize("offset", [-3000.0, -90.0, -60.0, 0.0, 60.0, 90.0, 3000.0])
def test_scores_that_share_an_offset_weigh_all_keys_equally(offset: float) -> None:
    qkv = torch.zeros(1, TOKENS, 3, 2, HEAD_DIM)
    qkv[:, :, 0] = 1.0
    qkv[:, :, 1] = offset * HEAD_DIM**0.5 / HEAD_DIM  # so each score is `offset`
    qkv[:, :, 2] = torch.arange(TOKENS).view(1, -1, 1, 1) % 4
    mixed = headwise_attention(qkv.flatten(2).bfloat16(), 2)
    assert torch.allclose(mixed.float(), qkv[:, :, 2].mean().expand_as(mixed), rtol=1e-2)


def test_only_the_head_that_leaves_the_range_is_computed_again() -> None:
    qkv = qkv_with_scores_of(1.0).view(1, TOKENS, 3, 3, HEAD_DIM)
    expected = headwise_attention(qkv.flatten(2), 3).unflatten(2, (3, HEAD_DIM))
    large = qkv.clone()
    large[:, :, :2, 1] *= 64
    mixed = headwise_attention(large.flatten(2), 3).unflatten(2, (3, HEAD_DIM))
    assert torch.equal(mixed[:, :, ::2], expected[:, :, ::2])
    exact = plain_attention(large.float().flatten(2), 3).unflatten(2, (3, HEAD_DIM))
    assert torch.isfinite(mixed).all()
    assert (mixed[:, :, 1] - exact[:, :, 1]).norm() < 0.2 * exact[:, :, 1].norm()


def test_a_broken_weight_gives_nan_and_not_a_plausible_vector() -> None:
    qkv = qkv_with_scores_of(1.0)
    qkv[0, 7, 0] = torch.nan
    assert headwise_attention(qkv, 3)[0, 7].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_linear_takes_strided_rows(dtype: torch.dtype) -> None:
    if not packing_works(dtype):
        pytest.skip("this PyTorch or processor has no packed operators")
    generator = torch.Generator().manual_seed(3)
    wide, weight = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((5, 128), (32, 64)))
    result = PackedLinear(weight, rows=5)(wide[:, ::2])
    assert largest_distance(result, wide[:, ::2].double() @ weight.double().T) < BOUND["bf16"]


def test_two_embedders_in_two_threads_do_not_disturb_each_other() -> None:
    embedders = [both_paths(random_encoder(V0, shallow(V0), seed), "bf16")[0] for seed in (0, 1)]
    inputs = chips(V0, 1)
    expected = [embedder.encode(*inputs, "group") for embedder in embedders]
    with ThreadPoolExecutor(4) as pool:
        jobs = [(which, pool.submit(embedders[which].encode, *inputs, "group")) for which in (0, 1, 0, 1) * 3]
        for which, job in jobs:
            assert torch.equal(job.result(), expected[which])
    assert not torch.equal(expected[0], expected[1])


def test_batch_size_follows_the_free_memory_of_a_gpu() -> None:
    small, gigabyte = V0.sizes["small"], 2**30
    sizes = [fitting_batch(free * gigabyte, V0, small, "bf16") for free in (0, 1, 4, 80)]
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert sizes[-1] == LARGEST_BATCH
    assert fitting_batch(4 * gigabyte, V0, small, "fp32") < sizes[2]
    assert fitting_batch(4 * gigabyte, V0, V0.sizes["large"], "bf16") < sizes[2]
    # A window of v1.5 has a fifth of a chip's pixels and two thirds of its tokens.
    assert sizes[2] < fitting_batch(4 * gigabyte, V15, small, "bf16") < 4 * sizes[2]


def test_batch_size_on_the_cpu_is_one_chip(tiny_encoder: Embedder) -> None:
    assert auto_batch_size(tiny_encoder) == 1
