"""Weights and chips generated from their names, bit-identical on every machine.

The golden embeddings were computed from these. A name's CRC-32 is the key of NumPy's Philox generator, whose
stream is the same on every machine and in every version: a list of names and shapes replaces 340 MB of
weights. The names are written out here instead of taken from the package under test.
"""

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

ENCODER_SIZES = {"custom": (16, 1, 64, 32), "tiny": (256, 4, 256, 512), "small": (768, 12, 768, 3072)}
"""Model size → token width, layers, width of all heads together, width of the MLP's hidden layer; `custom` is
no published size, and quick to write and read."""

DECODER_SIZE = (128, 2, 128, 256)
"""The same for the decoder of `tiny`, which every size here has: no embedding depends on it."""

GROUP_BANDS = {
    "rgb": (2, 1, 0),
    "rededge": (3, 4, 5, 7),
    "nir": (6,),
    "swir": (8, 9),
    "sar": (10, 11),
    "dem": (12,),
}
PATCH = 32

LAND = np.array([600, 800, 700, 1100, 2200, 2600, 2700, 2800, 1900, 1200], dtype=np.float64)
"""Typical reflectance x 10,000 of the ten optical bands."""

Shape = tuple[int, ...]

ENCODER_SIZES_V15 = {
    "custom": (64, 2, 128, 128),
    "small": (384, 6, 384, 768),
    "large": (1024, 24, 1024, 4096),
}
"""The same for Clay v1.5."""


def normal(name: str, shape: Shape) -> NDArray[np.float32]:
    """Standard normal numbers that depend only on the name."""
    philox = np.random.Philox(key=zlib.crc32(name.encode()))
    return np.random.Generator(philox).standard_normal(shape, dtype=np.float32)


def weight(name: str, shape: Shape) -> NDArray[np.float32]:
    """A parameter, scaled so that activations stay in range.

    A matrix or kernel has variance 1 / (inputs of one output); a norm's weight is around 1, a bias around 0.
    """
    numbers = normal(name, shape)
    if len(shape) > 1:
        return numbers / np.float32(np.sqrt(np.prod(shape[1:])))
    if name.endswith("weight"):
        return np.float32(1) + np.float32(0.1) * numbers
    return np.float32(0.05) * numbers


def _linear(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _transformer(name: str, size: tuple[int, int, int, int]) -> Iterator[tuple[str, Shape]]:
    width, depth, heads_width, hidden = size
    yield from _norm(f"{name}.norm", width)
    for number in range(depth):
        attention, mlp = f"{name}.layers.{number}.0", f"{name}.layers.{number}.1.net"
        yield from _norm(f"{attention}.norm", width)
        yield f"{attention}.to_qkv.weight", (3 * heads_width, width)
        yield from _linear(f"{attention}.to_out.0", width, heads_width)
        yield from _norm(f"{mlp}.0", width)
        yield from _linear(f"{mlp}.1", hidden, width)
        yield from _linear(f"{mlp}.4", width, hidden)


def encoder_shapes(model_size: str) -> dict[str, Shape]:
    """Names and shapes of the encoder's parameters in a checkpoint's `state_dict`."""
    size = ENCODER_SIZES[model_size]
    width = size[0]
    shapes = dict(_linear("model.encoder.latlon_embedding", width, 2))
    shapes |= _linear("model.encoder.time_embedding", width, 3)
    for group, bands in GROUP_BANDS.items():
        patch = f"model.encoder.patch_embedding.{group}"
        shapes[f"{patch}.proj.weight"] = (width, len(bands), PATCH, PATCH)
        shapes[f"{patch}.proj.bias"] = (width,)
        shapes |= _norm(f"{patch}.norm", width)
    return shapes | dict(_transformer("model.encoder.transformer", size))


def decoder_shapes(model_size: str) -> dict[str, Shape]:
    """Names and shapes of a decoder's parameters; see `DECODER_SIZE`."""
    width = DECODER_SIZE[0]
    shapes: dict[str, Shape] = {"model.decoder.mask_patch": (width,)}
    shapes |= _linear("model.decoder.enc_to_dec", width, ENCODER_SIZES[model_size][0])
    shapes |= _transformer("model.decoder.transformer", DECODER_SIZE)
    for group, bands in GROUP_BANDS.items():
        shapes |= _linear(f"model.decoder.embed_to_pixels.{group}", len(bands) * PATCH**2, width)
    return shapes


def encoder_shapes_v15(model_size: str) -> dict[str, Shape]:
    """Names and shapes of the parameters of Clay v1.5's encoder in a checkpoint's `state_dict`."""
    width, depth, heads_width, hidden = ENCODER_SIZES_V15[model_size]
    encoder = "model.encoder"
    waves = f"{encoder}.patch_embedding.weight_generator"
    shapes: dict[str, Shape] = {f"{encoder}.cls_token": (1, 1, width)}
    shapes |= _linear(f"{encoder}.patch_embedding.fclayer.l1", 128, 128)
    shapes |= _linear(f"{encoder}.patch_embedding.fclayer.l2", 128, 128)
    shapes |= {f"{waves}.weight_tokens": (128, 128), f"{waves}.bias_token": (1, 128)}
    shapes |= _linear(f"{waves}.fc_weight", 64 * width, 128)
    shapes |= _linear(f"{waves}.fc_bias", width, 128)
    layer = f"{waves}.encoder.layers.0"
    shapes |= {f"{layer}.self_attn.in_proj_weight": (384, 128), f"{layer}.self_attn.in_proj_bias": (384,)}
    shapes |= _linear(f"{layer}.self_attn.out_proj", 128, 128)
    shapes |= _linear(f"{layer}.linear1", 2048, 128)
    shapes |= _linear(f"{layer}.linear2", 128, 2048)
    shapes |= _norm(f"{layer}.norm1", 128)
    shapes |= _norm(f"{layer}.norm2", 128)
    shapes |= _norm(f"{encoder}.transformer.norm", width)
    for number in range(depth):
        attention, mlp = (f"{encoder}.transformer.layers.{number}.{part}" for part in ("0", "1.net"))
        shapes |= _norm(f"{attention}.norm", width)
        shapes[f"{attention}.to_qkv.weight"] = (3 * heads_width, width)
        shapes[f"{attention}.to_out.weight"] = (width, heads_width)
        shapes |= _norm(f"{mlp}.0", width)
        shapes |= _linear(f"{mlp}.1", hidden, width)
        shapes |= _linear(f"{mlp}.3", width, hidden)
    return shapes


def chip_pixels(name: str, size: int = 512) -> NDArray[np.float32]:
    """A chip of (13, size, size) pixels in physical units, smooth enough to look like land.

    Each band is a coarse field of 9 x 9 normal numbers, blended bilinearly, and noise per pixel.
    """
    place = np.linspace(0, 8, size)
    left = np.minimum(place.astype(int), 7)
    share = place - left
    coarse = normal(f"{name}/low", (13, 9, 9)).astype(np.float64)
    rows = coarse[:, left] * (1 - share)[:, None] + coarse[:, left + 1] * share[:, None]
    smooth = rows[..., left] * (1 - share) + rows[..., left + 1] * share
    noise = normal(f"{name}/noise", (13, size, size)).astype(np.float64)

    optical = LAND[:, None, None] * (1 + 0.3 * smooth[:10]) + 20 * noise[:10]
    radar = np.array([[[0.08]], [[0.02]]]) * np.exp(0.5 * smooth[10:12] + 0.3 * noise[10:12])
    height = 300 + 150 * smooth[12:] + noise[12:]
    pixels = np.concatenate((np.rint(optical).clip(1, 20_000), radar, height))
    return pixels.astype(np.float32)
