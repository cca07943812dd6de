"""Names of Clay v0's parameters in a Lightning checkpoint (vit-pytorch's) and in our encoder."""

from types import MappingProxyType

from clay_model.checkpoint_format import CheckpointFormat, shapes_of, transformer_names, with_weights
from clay_model.model_spec import Dimensions
from clay_model.v0.encoder import Encoder
from clay_model.v0.spec import BAND_GROUPS, CHIP_SIZE, PATCH_SIZE, SPEC

_LAYER_NAMES = {
    "0.norm.weight": "attention.norm.weight",
    "0.norm.bias": "attention.norm.bias",
    "0.to_qkv.weight": "attention.to_qkv.weight",
    "0.to_out.0.weight": "attention.to_out.weight",
    "0.to_out.0.bias": "attention.to_out.bias",
    "1.net.0.weight": "mlp.norm.weight",
    "1.net.0.bias": "mlp.norm.bias",
    "1.net.1.weight": "mlp.expand.weight",
    "1.net.1.bias": "mlp.expand.bias",
    "1.net.4.weight": "mlp.contract.weight",
    "1.net.4.bias": "mlp.contract.bias",
}


def _names(dimensions: Dimensions) -> dict[str, str]:
    names = {
        "latlon_embedding.weight": "place_embedding.weight",
        "latlon_embedding.bias": "place_embedding.bias",
        "time_embedding.weight": "date_embedding.weight",
        "time_embedding.bias": "date_embedding.bias",
    }
    for group in BAND_GROUPS:
        for part in ("proj.weight", "proj.bias", "norm.weight", "norm.bias"):
            names[f"patch_embedding.{group}.{part}"] = f"patch_embeddings.{group}.{part}"
    return names | transformer_names(dimensions, _LAYER_NAMES)


FORMAT = CheckpointFormat(
    spec=SPEC,
    marks=tuple(f"patch_embedding.{group}." for group in BAND_GROUPS),
    dropped=("model.decoder.",),  # reconstructs masked patches in training
    settings=MappingProxyType(
        {"image_size": CHIP_SIZE, "patch_size": PATCH_SIZE, "band_groups": BAND_GROUPS}
    ),
    names=_names,
    shapes=lambda dimensions: shapes_of(lambda: Encoder(dimensions)),
    build=lambda dimensions, weights: with_weights(lambda: Encoder(dimensions), weights),
)
