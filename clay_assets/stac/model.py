"""The network as a STAC Item of the machine-learning-model extension: what goes in, what comes out.

The bands, their statistics and the window come from `clay_model.spec`; shape and level from the files.
https://github.com/stac-extensions/mlm/tree/v1.4.0
"""

from clay_assets.reading.facts import Facts
from clay_assets.stac.item import EXTENSIONS, STAC_VERSION, Json, link
from clay_model.model_spec import ModelSpec
from clay_model.spec import model_of

MODEL_EXTENSIONS = [f"{EXTENSIONS}/mlm/v1.4.0/schema.json", f"{EXTENSIONS}/eo/v1.1.0/schema.json"]


def model_item(facts: Facts, *, extent: Json, checkpoint: str = "") -> Json:
    """Describe the network that made some files.

    Args:
        facts: Of one of them.
        extent: `geometry`, `bbox`, `start_datetime`, `end_datetime` of the imagery it was applied to; an Item
            needs a place and a time.
        checkpoint: URL of the weights; no asset where empty.
    """
    said = facts.provenance
    name = said.get("model", "not said")
    dim = facts.shape[-1] if facts.shape else 0
    spec = _spec(name)
    properties: Json = {
        "datetime": None,
        "start_datetime": extent["start_datetime"],
        "end_datetime": extent["end_datetime"],
        "description": f"{name}, a vision transformer for satellite imagery, used as an encoder",
        "mlm:name": name,
        "mlm:architecture": "ViT",
        "mlm:framework": "pytorch",
        "mlm:tasks": ["similarity-search"],
        "mlm:pretrained": not said.get("weights", "").startswith("untrained"),
        "mlm:input": [_input(spec)] if spec else [],
        "mlm:output": [
            {
                "name": f"embedding at level {said.get('level', 'not said')}",
                "tasks": ["similarity-search"],
                "result": {
                    "shape": [-1, *facts.shape],
                    "dim_order": ["batch", *_axes(facts.shape)],
                    "data_type": "float32",
                },
            }
        ],
        "clay:checkpoint_sha256": said.get("checkpoint_sha256", "not said"),
    }
    if spec:
        properties["eo:bands"] = [{"name": band} for band in spec.bands]
    assets = {}
    if checkpoint:
        assets["model"] = {
            "href": checkpoint,
            "type": "application/octet-stream; application=pytorch",
            "roles": ["mlm:model"],
            "mlm:artifact_type": "torch.save",
        }
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": MODEL_EXTENSIONS,
        "id": f"{name}-{dim}",
        "geometry": extent["geometry"],
        "bbox": extent["bbox"],
        "properties": properties,
        "links": [link("root", "collection.json"), link("parent", "collection.json")],
        "assets": assets,
    }


def _spec(name: str) -> ModelSpec | None:
    """The model's description, or None where the name is none of ours."""
    try:
        return model_of(name)[0]
    except ValueError:
        return None


def _input(spec: ModelSpec) -> Json:
    return {
        "name": "windows of chips",
        "bands": list(spec.bands),
        "input": {
            "shape": [-1, len(spec.bands), spec.window_size, spec.window_size],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": deviation}
            for mean, deviation in zip(spec.mean, spec.deviation, strict=True)
        ],
    }


def _axes(shape: tuple[int, ...]) -> list[str]:
    """Names of an embedding's axes: D; before it rows and columns of patches; before these band groups."""
    return ["groups", "patch_rows", "patch_columns", "dimensions"][-len(shape) :] if shape else []
